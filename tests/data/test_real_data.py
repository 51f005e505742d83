"""The real data sets against their published facts."""

import hashlib
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from sddpm.data import open_dataset

MNIST_COUNTS = {
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}


@pytest.mark.parametrize("split", ["train", "test"])
def test_mnist_counts_and_moments(shared_dir, split):
    ds = open_dataset("mnist", shared_dir / "data" / "mnist", split=split)
    assert torch.bincount(ds.labels).tolist() == MNIST_COUNTS[split]
    if split == "train":
        assert ds.labels[:5].tolist() == [5, 0, 4, 1, 9]
        x = ds.images.double() / 255
        assert round(float(x.mean()), 4) == 0.1307 and round(float(x.std()), 4) == 0.3081


def test_fashion_mnist_counts_and_moments(shared_dir):
    ds = open_dataset("fashion-mnist", shared_dir / "data")  # the folder above is fine too
    assert torch.bincount(ds.labels).tolist() == [6000] * 10
    x = ds.images.double() / 255
    assert round(float(x.mean()), 4) == 0.2860 and round(float(x.std()), 4) == 0.3530


def test_28_to_32_is_pillows_bilinear(shared_dir):
    folder = shared_dir / "data" / "mnist"
    native = open_dataset("mnist", folder, split="test", limit=200)
    resized = open_dataset("mnist", folder, split="test", limit=200, image_size=32)
    assert resized.images.shape == (200, 1, 32, 32)
    for a, b in zip(native.images, resized.images, strict=True):
        expected = Image.fromarray(a[0].numpy(), "L").resize((32, 32), Image.Resampling.BILINEAR)
        assert np.array_equal(np.asarray(expected), b[0].numpy())


def test_cifar10_train_mean_and_counts(shared_dir):
    ds = open_dataset("cifar10", shared_dir / "data" / "cifar10")
    assert len(ds) == 50_000 and (ds.channels, ds.image_size) == (3, 32)
    mean = ds.images.double().mean((0, 2, 3)) / 255
    assert [round(float(x), 4) for x in mean] == [0.4914, 0.4822, 0.4465]
    assert torch.bincount(ds.labels).tolist() == [5000] * 10
    assert len(set(ds.names)) == 50_000


def test_cifar10_test_split(shared_dir):
    ds = open_dataset("cifar10", shared_dir / "data" / "cifar10", split="test")
    assert torch.bincount(ds.labels).tolist() == [1000] * 10


@pytest.mark.parametrize("memory_limit", [1 << 30, 0])
def test_celeba_ddim_crop_of_the_half_size_images(shared_dir, memory_limit):
    path = shared_dir / "data" / "celeba64" / "celeba-aligned-89x109-10000.zip"
    ds = open_dataset("celeba", path, crop="ddim64", limit=50, memory_limit=memory_limit)
    with zipfile.ZipFile(path) as archive:
        for i in (0, 49):
            pixels = np.asarray(Image.open(archive.open(f"{i + 1:06d}.jpg")))
            assert np.array_equal(ds[i].permute(1, 2, 0).numpy(), pixels[28:92, 12:76])
    assert ds.labels is None


def test_files_are_the_published_ones(shared_dir):
    """So that the facts above are about the right files."""
    from sddpm.data.registry import _FASHION_FILES, _MNIST_FILES

    for folder, files in (("mnist", _MNIST_FILES), ("fashion-mnist", _FASHION_FILES)):
        for name, md5 in files.items():
            assert hashlib.md5((shared_dir / "data" / folder / name).read_bytes()).hexdigest() == md5
