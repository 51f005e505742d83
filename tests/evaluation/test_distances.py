"""Distances of weighted samples: a sample that counts twice is a sample that is there twice."""

import numpy as np
import pytest
import torch

from sddpm.evaluation.metrics import METRICS, Features, distances, kid
from sddpm.evaluation.metrics.distances import frechet_to, kid_to, mean_of
from sddpm.evaluation.statistics import Moments, frechet_distance
from sddpm.guidance.bootstrap import draw_weights


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.normal(3.0, 1.0, (80, 6)) @ rng.normal(size=(6, 6)))


@pytest.fixture
def reference():
    return np.random.default_rng(1).normal(2.5, 1.2, (70, 6)).astype(np.float32)


def repeated(rows, weights):
    return rows.repeat_interleave(weights.long(), 0)


def test_frechet_is_that_of_the_repeated_samples(rows, reference):
    target = Moments.of(torch.from_numpy(reference)).gaussian()
    distance = frechet_to(target)
    assert distance(rows) == pytest.approx(frechet_distance(Moments.of(rows).gaussian(), target), rel=1e-10)
    weights = draw_weights(80, 5, 0)
    expected = [frechet_distance(Moments.of(repeated(rows, w)).gaussian(), target) for w in weights]
    torch.testing.assert_close(distance.weighted(rows, weights), torch.tensor(expected, dtype=torch.float64))


def test_frechet_of_few_distinct_samples(rows, reference):
    """Covariances without full rank, as resamples of few samples have."""
    target = Moments.of(torch.from_numpy(reference)).gaussian()
    weights = torch.zeros(1, 80, dtype=torch.float64)
    weights[0, :4] = 20
    expected = frechet_distance(Moments.of(repeated(rows, weights[0])).gaussian(), target)
    assert float(frechet_to(target).weighted(rows, weights)) == pytest.approx(expected, rel=1e-6)


def test_kid_is_that_of_all_samples_at_once(rows, reference):
    target = Features("pool", reference)
    whole = kid(Features("pool", rows.numpy()[:70]), target, subsets=1, subset_size=70)
    assert kid_to(target)(rows[:70]) == pytest.approx(whole.value, rel=1e-9)


def test_a_weighted_kid_counts_no_pair_of_a_sample_with_itself(rows, reference):
    y = torch.from_numpy(reference).double()
    k = lambda a, b: (a @ b.T / 6 + 1) ** 3  # noqa: E731
    for w in draw_weights(80, 3, 1):
        index = torch.arange(80).repeat_interleave(w.long())
        pairs = k(rows[index], rows[index])
        different = index[:, None] != index[None]
        own = k(y, y)
        expected = (
            pairs[different].mean() + (own.sum() - own.diagonal().sum()) / (70 * 69) - 2 * k(rows[index], y).mean()
        )
        found = kid_to(Features("pool", reference)).weighted(rows, w[None])
        assert float(found) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize(("most", "step"), [(70, 1), (69, 2), (30, 3)])
def test_kid_in_chunks_and_of_an_evenly_spaced_reference(rows, reference, monkeypatch, most, step):
    """Chunks that divide neither the 80 samples nor the 70 reference vectors; every step-th of these, so that no more
    than `most` are left. A vector's kernel with itself counts nowhere."""
    monkeypatch.setattr(distances, "_CHUNK", 9)
    monkeypatch.setattr(distances, "KID_REFERENCE", most)
    x, y = rows.numpy(), reference[::step].astype(np.float64)
    k = lambda a, b: (a @ b.T / 6 + 1) ** 3  # noqa: E731
    other = lambda a: 1 - np.eye(len(a))  # noqa: E731
    own = (k(y, y) * other(y)).sum() / (len(y) * (len(y) - 1))
    w = draw_weights(80, 4, 2)
    expected = []
    for weights in w.numpy():
        pairs = np.outer(weights, weights) * other(x)  # a sample drawn twice is no pair either
        expected.append((pairs * k(x, x)).sum() / pairs.sum() + own - 2 * weights @ k(x, y).mean(1) / weights.sum())
    found = kid_to(Features("pool", reference)).weighted(rows, w)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0)


def test_resampled_kid_has_no_bias(reference):
    """Samples of the reference's own distribution: about 0, also when drawn again."""
    same = torch.from_numpy(np.random.default_rng(5).normal(2.5, 1.2, (300, 6)))
    distance = kid_to(Features("pool", np.random.default_rng(6).normal(2.5, 1.2, (300, 6)).astype(np.float32)))
    resampled = distance.weighted(same, draw_weights(300, 200, 0))
    assert abs(float(resampled.mean()) - distance(same)) < 3 * float(resampled.std()) / 200**0.5


def test_means():
    rows = torch.tensor([[1.0], [2.0], [6.0]], dtype=torch.float64)
    weights = torch.tensor([[1, 1, 1], [3, 0, 0], [0, 1, 2]], dtype=torch.float64)
    torch.testing.assert_close(mean_of(rows, weights), torch.tensor([3.0, 1.0, 14 / 3], dtype=torch.float64))


def test_references_are_told_apart(reference):
    one, other = Features("pool", reference), Features("pool", reference + 1)
    assert len({kid_to(one).identity, kid_to(other).identity, frechet_to(other.gaussian).identity}) == 3
    assert kid_to(one).identity == kid_to(Features("pool", reference.copy())).identity


def test_few_samples_that_vary_less_are_preferred_by_frechet_and_not_by_the_kernel():
    """Of 60 samples in 16 dimensions: N(0, I) is the truth, N(0, 0.9 I) is not."""
    rng = np.random.default_rng(7)
    reference = Features("fad", rng.normal(size=(4000, 16)).astype(np.float32))
    drawn = [torch.from_numpy(rng.normal(size=(60, 16))) for _ in range(60)]
    frechet, kernel = frechet_to(reference.gaussian), kid_to(reference)
    true, narrow = ([np.mean([d(s * x) for x in drawn]) for d in (frechet, kernel)] for s in (1.0, 0.9))
    assert narrow[0] < true[0] and true[1] < narrow[1]
    assert [name for name, metric in METRICS.items() if metric.unbiased] == ["kid", "kad"]


def test_kad_is_kid_in_the_features_of_fad():
    assert METRICS["kad"].features == METRICS["fad"].features and METRICS["kad"].network == "fad"
    assert (METRICS["kad"].compute, METRICS["kad"].distance) == (METRICS["kid"].compute, METRICS["kid"].distance)
