"""Real images, real Inception features: the more noise or blur, the larger the distances."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sddpm.data import open_dataset
from sddpm.evaluation.features.extractor import inception_extractor
from sddpm.evaluation.metrics import Features, kid
from sddpm.evaluation.statistics import frechet_distance

COUNT = 24


def noisy(images, level):
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0)) * level
    return (images + noise).round().clamp(0, 255).to(torch.uint8)


def blurred(images, radius):
    if radius == 0:
        return images
    width = 2 * radius + 1
    padded = F.pad(images.float(), (radius,) * 4, mode="replicate")
    return F.avg_pool2d(padded, width, stride=1).round().to(torch.uint8)


@pytest.fixture(scope="module")
def real(shared_dir):
    data = open_dataset("cifar10", shared_dir / "data" / "cifar10", split="test", limit=2 * COUNT)
    return data.gather(range(COUNT)), data.gather(range(COUNT, 2 * COUNT))


@pytest.fixture(scope="module")
def extractor(real_inception):
    return inception_extractor(["64", "192"], weights=real_inception)


@pytest.mark.parametrize(("degrade", "levels"), [(noisy, (0, 15, 50)), (blurred, (0, 1, 2))])
def test_distances_grow(real, extractor, degrade, levels):
    target = extractor(real[0])
    found = [extractor(degrade(real[1], level)) for level in levels]
    for name in extractor.lengths:
        reference = Features(name, target[name].numpy())
        samples = [Features(name, rows[name].numpy()) for rows in found]
        # Not by `frechet`, which rightly refuses so few images; the distance itself is defined.
        distances = [frechet_distance(x.gaussian, reference.gaussian) for x in samples]
        assert np.all(np.diff(distances) > 0), (name, distances)
        kernel = [kid(x, reference, subsets=1).value for x in samples]
        assert np.all(np.diff(kernel) > 0), (name, kernel)
