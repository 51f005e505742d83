"""idx files, whole and damaged, as MNIST's folder."""

import gzip
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from sddpm.data import open_dataset
from sddpm.data.idx import read_idx
from sddpm.errors import UserError


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, max_side=6)), st.booleans())
def test_reads_what_was_written(tmp_path, write_idx, images, packed):
    path = write_idx(tmp_path / ("x.gz" if packed else "x"), images)
    assert np.array_equal(read_idx(path, 3), images)


@pytest.fixture
def mnist_like(tmp_path, write_idx):
    images = np.random.default_rng(1).integers(0, 256, (7, 28, 28), np.uint8)
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", images)
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.arange(7, dtype=np.uint8))  # unpacked is fine too
    return tmp_path, images


def test_folder_with_images_and_labels(mnist_like):
    folder, images = mnist_like
    ds = open_dataset("mnist", folder)
    assert np.array_equal(ds.images[:, 0].numpy(), images)
    assert ds.labels.tolist() == list(range(7))
    assert (ds.channels, ds.image_size, ds.name) == (1, 28, "mnist")


def test_without_label_file_there_are_no_labels(mnist_like):
    folder, _ = mnist_like
    (folder / "train-labels-idx1-ubyte").unlink()
    assert open_dataset("mnist", folder).labels is None


@pytest.mark.parametrize("layout", ["fashion-mnist", "raw", "FashionMNIST/raw"])
def test_known_subfolders_are_found(tmp_path, write_idx, layout):
    write_idx(tmp_path / layout / "t10k-images-idx3-ubyte.gz", np.ones((2, 28, 28), np.uint8))
    assert len(open_dataset("fashion-mnist", tmp_path, split="test")) == 2


def test_missing_split_is_named(mnist_like):
    with pytest.raises(UserError, match="t10k-images-idx3-ubyte"):
        open_dataset("mnist", mnist_like[0], split="test")


def test_label_count_must_fit(mnist_like, write_idx):
    write_idx(mnist_like[0] / "train-labels-idx1-ubyte", np.zeros(6, np.uint8))
    with pytest.raises(UserError, match="6 labels for 7 images"):
        open_dataset("mnist", mnist_like[0])


@pytest.mark.parametrize("tenth", range(10))
@pytest.mark.parametrize("packed", [True, False])
def test_truncated_anywhere_is_refused(tmp_path, write_idx, packed, tenth):
    path = write_idx(tmp_path / ("x.gz" if packed else "x"), np.random.default_rng(0).integers(0, 99, (5, 9, 9), "u1"))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * tenth // 10])
    with pytest.raises(UserError, match=r"truncated|not an idx|cannot read"):
        read_idx(path, 3)


def test_surplus_bytes_and_wrong_kind_are_refused(tmp_path, write_idx):
    path = write_idx(tmp_path / "x", np.zeros((2, 3, 3), np.uint8))
    with pytest.raises(UserError, match="not an idx file of 1-dim"):
        read_idx(path, 1)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(UserError, match="more"):
        read_idx(path, 3)


@pytest.mark.parametrize("name", ["x", "x.gz"])
def test_header_that_promises_the_moon_is_refused_without_allocating(tmp_path, name):
    data = struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    with pytest.raises(UserError, match="promises"):
        read_idx(tmp_path / name, 3)
