"""Searches of functions whose lowest point is known."""

from contextlib import suppress

import numpy as np
import pytest
from scipy import integrate, stats

from sddpm.guidance.bayes import GaussianProcess, bayes_search, expected_improvement, fit, matern52
from sddpm.guidance.search import BudgetSpent, Objective, coordinate_search, grid_search, smallest_budget
from sddpm.guidance.settings import DEFAULT_GRID


def bowl(*centre):
    """Lowest at `centre`, 3 % higher at 0.1 from it, as a metric might be; steeper along later axes."""
    steepness = 3 * np.arange(1, len(centre) + 1)
    return lambda point: 10 * (1 + float(steepness @ np.square(np.subtract(point, centre))))


def spend(search, measure, budget, *arguments):
    objective = Objective(measure, budget)
    with pytest.raises(BudgetSpent):
        search(objective, *arguments)
    assert len(objective.values) == budget
    return objective.best


def test_the_grid_is_refined_around_its_best():
    objective = Objective(bowl(0.966), 100)
    grid_search(objective, DEFAULT_GRID, 0)
    assert objective.best == (0.98,)
    grid_search(objective, DEFAULT_GRID, 4)
    assert objective.best[0] == pytest.approx(0.966, abs=0.004)
    assert len(objective.values) <= len(DEFAULT_GRID) + 2 * 4


def test_a_best_at_the_end_is_followed_outwards():
    objective = Objective(bowl(0.7), 100)
    grid_search(objective, (0.9, 0.95, 1.0), 6)
    assert objective.best[0] == pytest.approx(0.7, abs=0.03)
    objective = Objective(lambda point: point[0], 100)  # falls all the way to 0, which is no threshold
    grid_search(objective, (0.5, 1.0), 5)
    assert 0 < objective.best[0] < 0.2


@pytest.mark.parametrize(("centre", "budget"), [((0.963,), 20), ((0.97, 1.02, 1.05), 50), ((0.94, 1.06), 40)])
def test_coordinate_search_finds_the_lowest_point(centre, budget):
    objective = Objective(bowl(*centre), budget)
    with suppress(BudgetSpent):
        coordinate_search(objective, (1.0,) * len(centre), 0.9, 1.1, 0.04)
    assert objective.best == pytest.approx(centre, abs=0.004)
    assert len(objective.values) <= budget


@pytest.mark.parametrize(("centre", "budget"), [((0.963,), 14), ((0.97, 1.02, 1.05), 30), ((0.94, 1.06), 20)])
def test_bayesian_search_finds_the_lowest_point(centre, budget):
    best = spend(bayes_search, bowl(*centre), budget, (1.0,) * len(centre), 0.9, 1.1)
    assert best == pytest.approx(centre, abs=0.012)


def test_bayesian_search_sees_through_roughness():
    """A rough metric: the lowest single value may lie anywhere near, but not far off."""
    rng = np.random.default_rng(0)
    noise = {}

    def rough(point):
        return 100 * (point[0] - 0.95) ** 2 + noise.setdefault(point, rng.normal(0, 0.02))

    (best,) = spend(bayes_search, rough, 25, (1.0,), 0.9, 1.1)
    assert abs(best - 0.95) < 0.025


def test_searches_stay_within_their_range_and_budget():
    for search, arguments in ((coordinate_search, (0.9, 1.1, 0.04)), (bayes_search, (0.9, 1.1))):
        seen = []
        objective = Objective(lambda point, seen=seen: seen.append(point) or sum(point), 12)
        with pytest.raises(BudgetSpent):
            search(objective, (1.0, 1.0), *arguments)
        assert seen[0] == (1.0, 1.0) and len(seen) == len(set(seen)) == 12
        assert all(0.9 <= x <= 1.1 for point in seen for x in point)


def test_coordinate_search_ends_by_itself():
    objective = Objective(bowl(1.0, 1.0), 1000)
    coordinate_search(objective, (1.0, 1.0), 0.9, 1.1, 0.04)
    assert objective.best == (1.0, 1.0) and len(objective.values) == 1 + 4 * 7  # 0.04 halved to 0.000625


def test_smallest_budgets():
    assert smallest_budget("grid", 1, DEFAULT_GRID) == 15
    assert smallest_budget("coordinate", 3, ()) == 7
    assert smallest_budget("bayes", 2, ()) == 6


def by_conditioning(x, y, new, length, noise, scale):
    """Mean and variance of a Gaussian given part of it, by the textbook formula with an explicit inverse."""

    def cov(a, b):
        r = np.sqrt(5) * np.abs(np.subtract.outer(a, b)) / length
        return scale * (1 + r + r**2 / 3) * np.exp(-r)

    inverse = np.linalg.inv(cov(x, x) + noise * scale * np.eye(len(x)))
    mean = cov(new, x) @ inverse @ y
    return mean, np.diag(cov(new, new) - cov(new, x) @ inverse @ cov(x, new))


def test_the_posterior_is_that_of_a_conditioned_gaussian():
    rng = np.random.default_rng(1)
    x, y, new = rng.random(6), rng.normal(size=6), np.linspace(-0.5, 1.5, 9)
    process = GaussianProcess(x[:, None], y, 0.4, 0.05, 2.5)
    mean, variance = process.posterior(new[:, None])
    expected = by_conditioning(x, y, new, 0.4, 0.05, 2.5)
    np.testing.assert_allclose(mean, expected[0], rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(variance, expected[1], rtol=1e-7, atol=1e-9)


def test_one_observation_without_noise_by_hand():
    mean, variance = GaussianProcess(np.zeros((1, 1)), np.array([2.0]), 1.0, 0.0).posterior(np.array([[0.0], [1.0]]))
    k = (1 + 5**0.5 + 5 / 3) * np.exp(-(5**0.5))
    np.testing.assert_allclose(mean, [2, 2 * k])
    np.testing.assert_allclose(variance, [0, 1 - k**2], atol=1e-15)


def test_the_likelihood_is_the_multivariate_normal_density():
    rng = np.random.default_rng(2)
    x, y = rng.random((7, 2)), rng.normal(size=7)
    process = GaussianProcess(x, y, 0.7, 0.1, 1.7)
    covariance = 1.7 * (matern52(x, x, 0.7) + 0.1 * np.eye(7))
    assert process.log_likelihood() == pytest.approx(stats.multivariate_normal(np.zeros(7), covariance).logpdf(y))


def test_fitting_finds_length_and_noise_of_a_drawn_function():
    rng = np.random.default_rng(3)
    x = np.linspace(0, 1, 60)[:, None]
    y = rng.multivariate_normal(np.zeros(60), matern52(x, x, 0.3) + 0.01 * np.eye(60))
    process = fit(x, y)
    assert 0.15 < process.length < 0.6 and 0.003 < process.noise < 0.05 and 0.2 < process.scale < 5


@pytest.mark.parametrize(("mean", "std", "best"), [(0.3, 0.5, 0.1), (-1.0, 0.2, 0.0), (2.0, 0.7, 0.0)])
def test_expected_improvement_is_the_integral(mean, std, best):
    gain, _ = integrate.quad(lambda f: max(best - f, 0) * stats.norm.pdf(f, mean, std), mean - 12 * std, best)
    found = expected_improvement(np.array([mean]), np.array([std**2]), best)
    assert found[0] == pytest.approx(gain, rel=1e-6, abs=1e-12)


def test_nothing_is_expected_where_all_is_known():
    found = expected_improvement(np.array([1.0, 3.0]), np.zeros(2), 2.0)
    np.testing.assert_array_equal(found, [1.0, 0.0])
