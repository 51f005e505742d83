"""Searches of functions whose lowest point is known."""

from contextlib import suppress

import numpy as np
import pytest

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


def test_searches_stay_within_their_range_and_budget():
    seen = []
    objective = Objective(lambda point: seen.append(point) or sum(point), 12)
    with pytest.raises(BudgetSpent):
        coordinate_search(objective, (1.0, 1.0), 0.9, 1.1, 0.04)
    assert seen[0] == (1.0, 1.0) and len(seen) == len(set(seen)) == 12
    assert all(0.9 <= x <= 1.1 for point in seen for x in point)


def test_coordinate_search_ends_by_itself():
    objective = Objective(bowl(1.0, 1.0), 1000)
    coordinate_search(objective, (1.0, 1.0), 0.9, 1.1, 0.04)
    assert objective.best == (1.0, 1.0) and len(objective.values) == 1 + 4 * 7  # 0.04 halved to 0.000625


def test_smallest_budgets():
    assert smallest_budget("grid", 1, DEFAULT_GRID) == 15
    assert smallest_budget("coordinate", 3, ()) == 7
