"""Feature networks with random weights, small images, and where the real Inception weights lie."""

import numpy as np
import pytest
import torch

from sddpm.evaluation.features.fad import FadEncoder
from sddpm.evaluation.features.inception import InceptionV3


@pytest.fixture(scope="session")
def real_inception(shared_dir):
    """The published weights up to Mixed_6e."""
    return shared_dir / "data" / "inception" / "pt_inception-2015-12-05-to-Mixed_6e.pth"


def randomise(network, seed):
    """Random weights and batch-norm statistics that neither vanish nor explode through 94 layers."""
    generator = torch.Generator().manual_seed(seed)
    state = network.state_dict()
    for key, value in state.items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 2.0, generator=generator)
        elif value.ndim > 1:
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
        elif value.is_floating_point():
            value.normal_(1.0 if key.endswith("bn.weight") else 0.0, 0.1, generator=generator)
    return state


@pytest.fixture(scope="session")
def random_inception(tmp_path_factory):
    """A file with random weights for all layers, and the state dict in it."""
    state = randomise(InceptionV3(["logits"]), 0)
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(state, path)
    return path, state


@pytest.fixture(scope="session")
def random_fad(tmp_path_factory):
    """A file with random weights of the grey autoencoder's encoder."""
    path = tmp_path_factory.mktemp("weights") / "fad.pth"
    torch.save(randomise(FadEncoder(1), 1), path)
    return path


@pytest.fixture
def blobs():
    """blobs(count, seed, shift): uint8 [count, 1, 8, 8], smooth random pictures, brighter by `shift`."""

    def make(count, seed, shift=0):
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 200, (count, 1, 4, 4)).repeat(2, 2).repeat(2, 3)
        return torch.from_numpy((coarse + rng.integers(0, 30, coarse.shape) + shift).clip(0, 255).astype(np.uint8))

    return make
