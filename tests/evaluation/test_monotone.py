"""Real images, real Inception features: the more noise or blur, the larger the distances."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sddpm.data import open_dataset
from sddpm.evaluation.features.extractor import Extractor, fad_extractor, inception_extractor
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


def answers(extractor: Extractor, target, degraded):
    """By feature: Fréchet and kernel distance of each set of images to `target`."""
    wanted, found = extractor(target), [extractor(images) for images in degraded]
    for name in extractor.lengths:
        reference = Features(name, wanted[name].numpy())
        samples = [Features(name, rows[name].numpy()) for rows in found]
        # Not by `frechet`, which rightly refuses so few images; the distance itself is defined.
        yield name, [frechet_distance(x.gaussian, reference.gaussian) for x in samples]
        yield f"kid {name}", [kid(x, reference, subsets=1).value for x in samples]


@pytest.fixture(scope="module")
def inception(real_inception):
    return inception_extractor(["64", "192"], weights=real_inception)


@pytest.mark.parametrize(("degrade", "levels"), [(noisy, (0, 15, 50)), (blurred, (0, 1, 2))])
def test_inception_distances_grow(real, inception, degrade, levels):
    for name, distances in answers(inception, real[0], [degrade(real[1], level) for level in levels]):
        assert np.all(np.diff(distances) > 0), (name, distances)


@pytest.mark.slow
@pytest.mark.parametrize(("degrade", "levels"), [(noisy, (0, 15, 50)), (blurred, (0, 1, 2))])
def test_deep_inception_distances_grow(real, real_inception, degrade, levels):
    """Of images to themselves: between a dozen others in 2,000 dimensions the distance says little but how many."""
    deep = inception_extractor(["spatial", "768"], weights=real_inception)
    images = real[0][:12]
    for name, distances in answers(deep, images, [degrade(images, level) for level in levels]):
        assert np.all(np.diff(distances) > 0), (name, distances)
        assert name.startswith("kid") or distances[0] < 1e-6


@pytest.mark.parametrize(("degrade", "levels"), [(noisy, (0, 5, 10, 20, 40, 80)), (blurred, (0, 1, 2, 3, 4))])
def test_fad_grows(shared_dir, degrade, levels):
    data = open_dataset("fashion-mnist", shared_dir / "data" / "fashion-mnist", split="test", image_size=32, limit=1000)
    extractor = fad_extractor(shared_dir / "data" / "fad" / "fashion_64.pth", 1)
    images = data.gather(range(1000))
    degraded = [degrade(images[500:], level) for level in levels]
    for name, distances in answers(extractor, images[:500], degraded):
        assert np.all(np.diff(distances) > 0), (name, distances)


def test_real_images_are_at_no_distance_from_themselves(real, inception):
    for name, (distance,) in answers(inception, real[0], [real[0]]):
        if not name.startswith("kid"):  # which, being unbiased, is below 0 here
            assert distance < 1e-8, name
