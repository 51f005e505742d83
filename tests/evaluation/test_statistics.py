"""Moments and the Fréchet distance against NumPy, SciPy and closed forms; statistics files good and bad."""

import math
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from sddpm.errors import UserError
from sddpm.evaluation.statistics import Gaussian, Moments, frechet_distance, psd_root
from sddpm.evaluation.statistics_files import StatisticsFile, is_statistics_file, read_statistics, write_statistics


def gaussian(mean, covariance):
    return Gaussian(torch.as_tensor(mean, dtype=torch.float64), torch.as_tensor(covariance, dtype=torch.float64))


def random_covariance(rng, dim, rank=None):
    a = rng.normal(size=(dim, rank or dim))
    return a @ a.T / dim


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 40), min_size=2, max_size=6), st.integers(0, 2**31))
def test_moments_of_parts_are_those_of_the_whole(sizes, seed):
    sizes = [*sizes, 2]
    rng = np.random.default_rng(seed)
    parts = [rng.normal(1000, 1, (size, 5)) for size in sizes]
    total = Moments.of_batches(torch.from_numpy(part) for part in parts)
    whole = np.concatenate(parts)
    assert total.count == len(whole)
    found = total.gaussian()
    np.testing.assert_allclose(found.mean, whole.mean(0), rtol=1e-13)
    np.testing.assert_allclose(found.covariance, np.cov(whole, rowvar=False), rtol=0, atol=1e-9)


def test_moments_can_be_taken_out_again():
    x, y = torch.randn(2, 30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 5
    rest = (Moments.of(x) + Moments.of(y)) - Moments.of(y)
    torch.testing.assert_close(rest.mean, Moments.of(x).mean)
    torch.testing.assert_close(rest.scatter, Moments.of(x).scatter)


def test_a_float32_offset_costs_no_digits():
    # Sums of squares in float32 would lose the variance of 1 beside 1e5^2.
    x = torch.randn(5000, 3, generator=torch.Generator().manual_seed(1)) + 1e5
    total = Moments.of_batches(x.split(100)).gaussian()
    np.testing.assert_allclose(total.covariance, np.cov(x.double().numpy(), rowvar=False), rtol=1e-9)


def test_memory_does_not_grow_with_the_number_of_batches():
    alive, most = weakref.WeakSet(), 0

    class Batch(torch.Tensor):
        pass

    def batches():
        nonlocal most
        for i in range(50):
            batch = torch.full((4, 3), float(i)).as_subclass(Batch)
            alive.add(batch)
            most = max(most, len(alive))
            yield batch
            del batch

    assert Moments.of_batches(batches()).count == 200
    assert most <= 3


def test_too_few_or_nan():
    with pytest.raises(UserError, match="at least 2 images"):
        Moments.of(torch.zeros(1, 3)).gaussian()
    with pytest.raises(UserError, match="not finite"):
        Moments.of(torch.tensor([[1.0], [math.nan]])).gaussian()


@pytest.mark.parametrize("rank", [None, 7])
def test_distance_equals_scipy(rank):
    rng = np.random.default_rng(3)
    a, b = random_covariance(rng, 20, rank), random_covariance(rng, 20, rank)
    mean_a, mean_b = rng.normal(size=(2, 20))
    tiny = 1e-13 * np.eye(20)  # without which sqrtm fails on singular matrices
    expected = ((mean_a - mean_b) ** 2).sum() + (a + b - 2 * sqrtm((a + tiny) @ (b + tiny)).real).trace()
    found = frechet_distance(gaussian(mean_a, a), gaussian(mean_b, b))
    assert found == pytest.approx(expected, rel=1e-4 if rank else 1e-10)


def test_closed_forms():
    one = gaussian([0.0], [[4.0]])
    assert frechet_distance(one, gaussian([3.0], [[25.0]])) == pytest.approx(9 + (2 - 5) ** 2, rel=1e-12)
    a, b = gaussian([0, 0, 1], np.diag([1.0, 4, 9])), gaussian([0, 2, 1], np.diag([16.0, 1, 9]))
    assert frechet_distance(a, b) == pytest.approx(4 + 9 + 1 + 0, rel=1e-12)
    rng = np.random.default_rng(4)
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    s, t = np.array([1.0, 2, 3, 4, 5]), np.array([2.0, 2, 1, 0, 5])
    turned = [gaussian(np.zeros(5), rotation @ np.diag(x**2) @ rotation.T) for x in (s, t)]
    assert frechet_distance(*turned) == pytest.approx(((s - t) ** 2).sum(), rel=1e-6)


@pytest.mark.parametrize("rank", [None, 3])
def test_distance_to_itself_is_zero_and_it_is_symmetric(rank):
    rng = np.random.default_rng(5)
    a = gaussian(rng.normal(size=50), random_covariance(rng, 50, rank))
    b = gaussian(rng.normal(size=50), random_covariance(rng, 50, rank))
    assert frechet_distance(a, a) < 1e-6
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)
    assert frechet_distance(a, b, psd_root(b.covariance)) == frechet_distance(a, b)


def test_disjoint_subspaces_have_no_overlap():
    a, b = gaussian([0, 0], np.diag([1.0, 0])), gaussian([0, 0], np.diag([0, 9.0]))
    assert frechet_distance(a, b) == pytest.approx(10, rel=1e-12)


def test_other_dimensions_are_refused():
    with pytest.raises(UserError, match=r"same number of dimensions, not 1 and 2"):
        frechet_distance(gaussian([0], [[1]]), gaussian([0, 0], np.eye(2)))


def test_files_round_trip_and_are_those_of_pytorch_fid(tmp_path):
    rng = np.random.default_rng(6)
    pool = Gaussian(torch.from_numpy(rng.normal(size=4)), torch.from_numpy(random_covariance(rng, 4)), 77)
    spatial = gaussian(rng.normal(size=3), random_covariance(rng, 3))
    write_statistics(tmp_path / "s.npz", StatisticsFile({"pool": pool, "spatial": spatial}, {"split": "test"}))
    with np.load(tmp_path / "s.npz") as content:  # as pytorch-fid and EDM read it
        assert np.array_equal(content["mu"], pool.mean) and np.array_equal(content["sigma"], pool.covariance)
    found = read_statistics(tmp_path / "s.npz")
    assert found.about == {"split": "test"}
    assert found.gaussians["pool"].count == 77
    torch.testing.assert_close(found.gaussians["spatial"].covariance, spatial.covariance)


def test_files_of_others_are_read(tmp_path):
    np.savez_compressed(tmp_path / "theirs.npz", mu=np.zeros(2, np.float32), sigma=np.eye(2))
    assert is_statistics_file(tmp_path / "theirs.npz")
    found = read_statistics(tmp_path / "theirs.npz")
    assert found.gaussians.keys() == {"pool"} and found.gaussians["pool"].count is None
    assert found.gaussians["pool"].mean.dtype == torch.float64


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.zeros(2)}, "has no sigma"),
        ({"images": np.zeros(2)}, "has no mu"),
        ({"mu": np.zeros(2), "sigma": np.eye(3)}, r"mu \[2\] and sigma \[3, 3\]"),
        ({"mu": np.zeros((2, 2)), "sigma": np.eye(2)}, r"mu \[2, 2\]"),
        ({"mu": np.zeros(2), "sigma": np.full((2, 2), np.nan)}, "not finite"),
        ({"mu": np.zeros(2), "sigma": np.array([[1.0, 2], [0, 1]])}, "not symmetric"),
        ({"mu": np.zeros(2), "sigma": -np.eye(2)}, "negative variances"),
        ({"mu": np.array(["a", "b"]), "sigma": np.eye(2)}, "must be numbers"),
        ({"mu": np.array([{}, {}]), "sigma": np.eye(2)}, "not an .npz of statistics"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(UserError, match=message) as caught:
        read_statistics(tmp_path / "bad.npz")
    assert "\n" not in str(caught.value)


def test_truncated_or_missing_files_are_refused(tmp_path):
    np.savez(tmp_path / "whole.npz", mu=np.zeros(100), sigma=np.eye(100))
    content = (tmp_path / "whole.npz").read_bytes()
    for cut in (0, 10, len(content) // 2, len(content) - 10):
        (tmp_path / "cut.npz").write_bytes(content[:cut])
        assert is_statistics_file(tmp_path / "cut.npz")
        with pytest.raises(UserError, match="truncated"):
            read_statistics(tmp_path / "cut.npz")
    with pytest.raises(UserError, match="no statistics file at"):
        read_statistics(tmp_path / "nothing.npz")
