"""Small spiking networks whose every layer has something to say."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from sddpm import SpikingUNet2DModel
from sddpm.diffusion.solvers import make_scheduler
from sddpm.pipelines import SpikingDiffusionPipeline

TINY = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "base_channels": 8, "channel_mult": (1, 2),
        "num_res_blocks": 1, "T": 3, "num_train_timesteps": 100}  # fmt: skip


@pytest.fixture(scope="session")
def make_model() -> Callable[..., SpikingUNet2DModel]:
    """A network in evaluation mode whose batch norms know their inputs, so that neurons fire."""

    def make(**overrides) -> SpikingUNet2DModel:
        torch.manual_seed(0)
        model = SpikingUNet2DModel(**(TINY | overrides)).train()
        nn.init.normal_(model.readout.conv.weight)
        shape = (8, model.config.in_channels, model.config.sample_size, model.config.sample_size)
        with torch.no_grad():
            for _ in range(20):
                model(torch.randn(shape), torch.randint(model.config.num_train_timesteps, (8,)))
        return model.eval()

    return make


@pytest.fixture
def pipeline(make_model) -> SpikingDiffusionPipeline:
    return SpikingDiffusionPipeline(make_model(), make_scheduler("ddim", num_train_timesteps=100))
