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


def test_spread_is_that_of_one_value(recipe):
    assert recipe.pooled_spread([[1.0, 3.0], [10.0, 10.0], [5.0]]) == (1.0, 2)
    assert recipe.pooled_spread([[4.0], []]) == (0.0, 0)


def test_intervals_cover_the_true_share(recipe, tmp_path):
    """Arms whose true share is known, with log-normal trainings: 95 % of 400 intervals hold it, of two seeds each."""
    rng, arms, truth = random.Random(0), 400, 0.8
    rows = [{"arm": "as it is", "seed": seed, "fad": 100.0} for seed in (0, 1)]
    for arm in range(arms):
        rows += [{"arm": str(arm), "seed": s, "fad": 100 * truth * rng.lognormvariate(0, 0.05)} for s in (0, 1)]
    common = {"stages": [{"images": 64}], "error": 0.2, "interval_95": [0.0, 1.0]}
    recipe.summarise([row | common for row in rows], tmp_path)

    shares = [line.split("|")[-2] for line in (tmp_path / "recipe.md").read_text().splitlines()[2:]]
    intervals = [share[share.index("[") :].strip(" []").split(",") for share in shares if "[" in share]
    assert len(intervals) == arms
    covered = sum(float(low) <= truth <= float(high) for low, high in intervals)
    assert 0.92 <= covered / arms <= 0.98


def test_one_seed_has_no_interval_of_trainings(recipe, tmp_path):
    row = {"seed": 0, "stages": [{"images": 64}], "error": None, "interval_95": [90.0, 110.0]}
    recipe.summarise([{"arm": "as it is", "fad": 100.0} | row, {"arm": "LIF", "fad": 50.0} | row], tmp_path)
    assert (tmp_path / "recipe.md").read_text().splitlines()[2] == "| LIF | 64 |  | 50.0 [90.0, 110.0] | 0.50 |"
