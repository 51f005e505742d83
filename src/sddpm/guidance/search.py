"""Searches for the thresholds with the lowest value, within a budget of trials."""

from collections.abc import Callable, Sequence

from sddpm.guidance.space import Point

SMALLEST_STEP = 5e-4  # in multiples of the trained thresholds; half the spacing of the paper's grid


class BudgetSpent(Exception):
    """The budget is used up."""


class Objective:
    """A function of a point, lower is better, that caches its values and allows `budget` different points."""

    def __init__(self, measure: Callable[[Point], float], budget: int):
        self.measure, self.budget = measure, budget
        self.values: dict[Point, float] = {}

    def __call__(self, point: Point) -> float:
        """The value at `point`. Raises `BudgetSpent` if it is new and the budget is used up."""
        point = tuple(round(x, 5) for x in point)
        if point not in self.values:
            if len(self.values) >= self.budget:
                raise BudgetSpent
            self.values[point] = self.measure(point)
        return self.values[point]

    @property
    def best(self) -> Point:
        """The point with the lowest value so far, the earliest if several are equal."""
        return min(self.values, key=self.values.__getitem__)


def grid_search(objective: Objective, grid: Sequence[float], refinements: int) -> None:
    """Measure one threshold over a grid, then `refinements` times the midpoints between the best and its neighbours. If
    the best is at the end of the grid, the grid is extended by the distance to its neighbour."""
    for multiple in grid:
        objective((multiple,))
    for _ in range(refinements):
        for multiple in neighbours([x for (x,) in objective.values], objective.best[0]):
            objective((multiple,))


def neighbours(tried: Sequence[float], best: float) -> list[float]:
    """The midpoints between the best number tried and its neighbours; beyond an end, one more step of the same size."""
    tried = sorted(tried)
    i = tried.index(best)
    below, above = tried[max(i - 1, 0)], tried[min(i + 1, len(tried) - 1)]
    outwards = {best - (above - best)} if i == 0 else {best + (best - below)} if i == len(tried) - 1 else set()
    return [x for x in sorted(outwards | {(best + below) / 2, (best + above) / 2}) if x > 0]


def coordinate_search(objective: Objective, start: Point, low: float, high: float, step: float) -> None:
    """Compass search (Kolda, Lewis, Torczon 2003, section 1.2): from `start`, take a step up or down each axis in turn
    if it is better; halve the step when none is. The direction that helped last is tried first."""
    best, signs = start, [-1.0] * len(start)
    value = objective(best)
    while step >= SMALLEST_STEP:
        moved = False
        for axis in range(len(start)):
            for sign in (signs[axis], -signs[axis]):
                x = min(max(best[axis] + sign * step, low), high)
                point = (*best[:axis], x, *best[axis + 1 :])
                if (found := objective(point)) < value:
                    best, value, signs[axis], moved = point, found, sign, True
                    break
        if not moved:
            step /= 2


def smallest_budget(method: str, axes: int, grid: Sequence[float]) -> int:
    """The smallest useful number of trials of a method, including the trained thresholds."""
    return {"grid": len(grid), "coordinate": 2 * axes + 1}[method]
