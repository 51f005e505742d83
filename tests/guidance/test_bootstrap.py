"""Intervals that hold what they promise, and rank correlations, against known variances and scipy."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from sddpm.evaluation.metrics.distances import frechet_to, mean_of
from sddpm.evaluation.statistics import Gaussian
from sddpm.guidance.bootstrap import draw_weights, estimate, spearman


def paired(a, b, distance, resamples=200, seed=0, other_seed=None):
    """The difference of b to a with the same draws on both sides (or, with another seed, with its own)."""
    draws = draw_weights(len(a), resamples, seed)
    others = draws if other_seed is None else draw_weights(len(a), resamples, other_seed)
    value = float(distance(b, torch.ones(1, len(b)).double()) - distance(a, torch.ones(1, len(a)).double()))
    return estimate(value, distance(b, others) - distance(a, draws))


def columns(rng, count, rho):
    """Two columns of unit variance and correlation `rho`."""
    a = rng.normal(size=(count, 1))
    return torch.from_numpy(a), torch.from_numpy(rho * a + math.sqrt(1 - rho**2) * rng.normal(size=(count, 1)))


def test_the_standard_error_of_a_paired_mean_is_the_known_one():
    a, b = columns(np.random.default_rng(0), 4000, 0.9)
    found = paired(a, b, mean_of, resamples=2000)
    assert found.standard_error == pytest.approx(math.sqrt(2 * (1 - 0.9) / 4000), rel=0.08)
    low, high = found.interval
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(2 * (1 - 0.9) / 4000), rel=0.1)
    assert low < found.value < high


def test_the_interval_covers_the_truth_19_times_in_20():
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(400):
        a, b = columns(rng, 100, 0.8)
        low, high = paired(a, b + 0.3, mean_of, seed=trial).interval
        covered += low <= 0.3 <= high
    assert 0.90 <= covered / 400 <= 0.98  # 0.95, and three standard errors of 400 trials


def test_the_interval_of_a_frechet_difference_covers_it_in_spite_of_its_bias():
    """Fréchet distances of few samples are too large, of resampled ones more so; their paired difference is neither."""
    rng = np.random.default_rng(2)
    dim, count = 8, 60
    distance = frechet_to(Gaussian(torch.zeros(dim).double(), torch.eye(dim).double()))

    def draw():
        a = rng.normal(size=(count, dim))
        return torch.from_numpy(a), torch.from_numpy(1.15 * a + 0.25)

    drawn = [draw() for _ in range(300)]
    truth = np.mean([distance(b) - distance(a) for a, b in drawn])  # at this number of samples
    found = [paired(a, b, distance.weighted, 60, seed) for seed, (a, b) in enumerate(drawn[:100])]
    covered = np.mean([low <= truth <= high for low, high in (each.interval for each in found)])
    assert covered >= 0.87  # 0.95, less three standard errors of 100 trials and what 60 resamples miss


def test_pairing_narrows_the_interval():
    a, b = columns(np.random.default_rng(3), 500, 0.95)
    same = paired(a, b, mean_of).interval
    apart = paired(a, b, mean_of, other_seed=1).interval
    # variances 2 (1 - 0.95) and 2: narrower by a factor of sqrt(20)
    assert (apart[1] - apart[0]) / (same[1] - same[0]) == pytest.approx(math.sqrt(20), rel=0.2)


def test_nothing_differs_from_itself():
    a, _ = columns(np.random.default_rng(4), 50, 0.5)
    found = paired(a, a, mean_of)
    assert found.value == 0 and found.interval == (0, 0)
    assert not found.below_zero and not found.above_zero


def test_chance_alone_is_rarely_taken_for_a_difference():
    rng = np.random.default_rng(5)
    wrong = 0
    for trial in range(300):
        a, b = columns(rng, 100, 0.5)
        wrong += paired(a, b, mean_of, seed=trial).below_zero
    assert wrong / 300 <= 0.06  # 2.5 % on this side


def test_draws_are_the_same_for_a_seed_and_of_the_right_size():
    weights = draw_weights(50, 30, 7)
    assert torch.equal(weights, draw_weights(50, 30, 7)) and not torch.equal(weights, draw_weights(50, 30, 8))
    assert torch.equal(weights.sum(1), torch.full((30,), 50.0).double())
    assert float(weights.var()) == pytest.approx(1, rel=0.15)  # multinomial: 1 - 1 / 50


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([1, 2, 3, 4, 5], [5, 6, 7, 8, 7]),
        ([1, 2, 2, 3, 9, 4], [3, 3, 1, 7, 2, 2]),
        (list(range(12)), [3, 1, 2, 6, 4, 5, 9, 7, 8, 10, 12, 11]),
    ],
)
def test_rank_correlation_is_scipys(a, b):
    rho, p_value = spearman(a, b)
    assert rho == pytest.approx(stats.spearmanr(a, b).statistic, rel=1e-12)
    exact = (
        stats.permutation_test(
            (a,), lambda x: stats.spearmanr(x, b).statistic, permutation_type="pairings", n_resamples=1000, rng=0
        )
        if len(a) > 5
        else stats.permutation_test(
            (a,), lambda x: stats.spearmanr(x, b).statistic, permutation_type="pairings", n_resamples=np.inf
        )
    )
    assert p_value == pytest.approx(exact.pvalue, abs=0.02)


def test_constant_losses_rank_nothing():
    rho, p_value = spearman([1, 1, 1, 1], [1, 2, 3, 4])
    assert math.isnan(rho) and p_value == 1
