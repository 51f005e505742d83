"""The comparison of recipes: intervals of shares cover the truth as often as they say."""

import random
from pathlib import Path

import pytest

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import recipe

    return recipe


def test_spread_is_what_arm_and_seed_leave(recipe):
    additive = {"a": {0: 1.0, 1: 2.0}, "b": {0: 5.0, 1: 6.0}}
    assert recipe.spread_of_trainings(additive) == (0.0, 1)
    crossed = {"a": {0: 1.0, 1: 0.0}, "b": {0: 0.0, 1: 1.0}, "one seed": {0: 9.0}}  # residuals of a half
    assert recipe.spread_of_trainings(crossed) == (1.0, 1)
    assert recipe.spread_of_trainings({"a": {0: 1.0}, "b": {0: 2.0}}) == (0.0, 0)


def test_intervals_cover_the_true_share(recipe):
    """Trainings that vary log-normally, with seeds that are good or bad for all: 95 % of intervals hold the truth."""
    rng, truth, covered = random.Random(0), 0.8, []
    for _ in range(400):
        of_seed = [rng.lognormvariate(0, 0.2) for _ in range(2)]

        def trainings(mean: float, of_seed=of_seed) -> dict[int, float]:
            return {s: mean * of_seed[s] * rng.lognormvariate(0, 0.05) for s in (0, 1)}

        scores = {"as it is": trainings(100.0)} | {str(arm): trainings(100.0 * truth) for arm in range(10)}
        shares = recipe.shares_of("as it is", scores)
        for arm in range(10):
            low, high = (float(end) for end in shares[str(arm)][1].strip("[]").split(","))
            covered.append(low <= truth <= high)
    assert 0.92 <= sum(covered) / len(covered) <= 0.98


def test_one_seed_has_no_interval_of_trainings(recipe, tmp_path):
    row = {"seed": 0, "stages": [{"images": 64}], "error": None, "interval_95": [90.0, 110.0]}
    recipe.summarise([{"arm": "as it is", "fad": 100.0} | row, {"arm": "LIF", "fad": 50.0} | row], tmp_path)
    assert (tmp_path / "recipe.md").read_text().splitlines()[2] == "| LIF | 64 |  | 50.0 [90.0, 110.0] | 0.50 |"
