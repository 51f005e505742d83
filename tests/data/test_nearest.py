"""Nearest images against exact integer search."""

import numpy as np
import pytest
import torch

from sddpm.data import nearest_images, open_dataset
from sddpm.errors import UserError


@pytest.fixture(scope="module")
def digits():
    return open_dataset("digits", image_size=16)


def brute_force(queries, images, k):
    """Python integers, sorted by (squared distance, index)."""
    squares = ((queries[:, None].astype(np.int64) - images[None].astype(np.int64)) ** 2).sum((2, 3, 4))
    order = [sorted(range(len(images)), key=lambda i, row=row: (row[i], i))[:k] for row in squares]
    return np.array(order), np.sqrt(np.take_along_axis(squares, np.array(order), 1).astype(np.float64))


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("chunk", [7, 100, 4096])
def test_equals_exact_search(digits, k, chunk):
    queries = torch.randint(0, 256, (5, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    indices, distances = nearest_images(queries, digits, k, chunk)
    expected = brute_force(queries.numpy(), digits.images.numpy(), k)
    assert np.array_equal(indices.numpy(), expected[0]) and np.array_equal(distances.numpy(), expected[1])


def test_a_copy_is_found_at_distance_zero(digits):
    wanted = torch.tensor([5, 1796, 42])
    indices, distances = nearest_images(digits.gather(wanted), digits, chunk=256)
    assert torch.equal(digits.gather(indices[:, 0]), digits.gather(wanted))
    assert distances.max() == 0


def test_one_grey_level_is_told_apart_from_none_in_the_brightest_images(tmp_path, encode, make_folder):
    white = np.full((64, 64, 3), 255, np.uint8)
    near = white.copy()
    near[0, 0, 0] = 254
    ds = open_dataset(make_folder(tmp_path / "x", {"0.png": encode(near), "1.png": encode(white)}))
    indices, distances = nearest_images(ds.images[1:], ds, k=2)
    assert indices.tolist() == [[1, 0]] and distances.tolist() == [[0.0, 1.0]]


def test_ties_go_to_the_lowest_index(tmp_path, pictures, encode, make_folder):
    files = {f"{i}.png": encode(pictures[0 if i % 2 else 1]) for i in range(8)}
    ds = open_dataset(make_folder(tmp_path / "x", files))
    indices, _ = nearest_images(ds.images[1:2], ds, k=4, chunk=3)
    assert indices.tolist() == [[1, 3, 5, 7]]


def test_lazy_data_give_the_same(tmp_path, pictures, encode, make_folder):
    folder = make_folder(tmp_path / "x", {f"{i}.png": encode(p) for i, p in enumerate(pictures)})
    held, lazy = open_dataset(folder), open_dataset(folder, memory_limit=0)
    for a, b in zip(nearest_images(held.images, held, 2), nearest_images(held.images, lazy, 2), strict=True):
        assert torch.equal(a, b)


def test_wrong_queries(digits):
    with pytest.raises(UserError, match=r"uint8 \[M, 1, 16, 16\]"):
        nearest_images(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), digits)
    with pytest.raises(UserError, match="uint8"):
        nearest_images(torch.zeros(2, 1, 16, 16), digits)
    for k in (0, 1798):
        with pytest.raises(UserError, match="k must be"):
            nearest_images(digits.images[:1], digits, k)
