"""The comparison of recipes: intervals of shares cover the truth as often as they say."""

import json
import random
import sys
from pathlib import Path

import pytest

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import recipe_summary

    return recipe_summary


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


def test_distances_in_other_units_and_without_a_logarithm(recipe, tmp_path):
    row = {"seed": 0, "stages": [{"images": 64}], "error": 0.25, "interval_95": [0.05, 0.07]}
    recipe.summarise([{"arm": "a", "kid": 0.06} | row, {"arm": "b", "kid": -0.001} | row], tmp_path, "kid", "a")
    assert (tmp_path / "recipe.md").read_text().splitlines()[2:] == [
        "| b | 64 | 0.2500 | -1.0 [50.0, 70.0] |  |",
        "| a | 64 | 0.2500 | 60.0 [50.0, 70.0] | 1.00 |",
    ]


def test_rows_of_another_score_are_not_taken_for_the_same(monkeypatch, tmp_path):
    """A row of an earlier version says neither its reference images nor its features: they are the usual ones."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import recipe

    found = {"stages": [{"images": 64}], "error": None, "kid": 0.06, "interval_95": [0.05, 0.07]}
    earlier = {"arm": "ours", "seed": 0, "minutes": 5.0, "samples": 1000, "solver_steps": 20, "set": None}
    folder, measured = tmp_path / "cifar10-paper", []
    folder.mkdir()
    (folder / "recipe.json").write_text(json.dumps([earlier | found]))

    def train_arm(table, name, seed, costs, args):
        measured.append((args.references, args.dim))
        return found

    monkeypatch.setattr(recipe, "train_arm", train_arm)
    for options in ([], ["--dim", "64"], ["--references", "50", "--dim", "64"], ["--dim", "64"]):
        command = ["recipe.py", "data", str(tmp_path), "--table", "cifar10-paper", "--arms", "ours", "--seeds", "0"]
        monkeypatch.setattr(sys, "argv", [*command, *options])
        recipe.main()
    assert measured == [(10_000, 64), (50, 64)]
    table = (folder / "recipe.md").read_text()
    assert "KID-64 x 1000" in table and table.count("| ours |") == 1


@pytest.mark.slow
def test_a_colour_arm_from_training_to_table(monkeypatch, shared_dir, tmp_path):
    """The smallest run of an arm in two stages: each is trained, the second from the first converted, and measured."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import recipe

    small = ["--set", "model.base_channels=8", "--set", "train.batch_size=4", "--set", "data.limit=64"]
    arguments = "--table cifar10-paper --arms ours --seeds 0 --minutes 0.02 --samples 40 --references 60 --dim 64"
    whole = ["recipe.py", str(shared_dir / "data"), str(tmp_path), *arguments.split(), *small]
    monkeypatch.setattr(sys, "argv", whole)
    recipe.main()
    folder = tmp_path / "cifar10-paper"
    rows = json.loads((folder / "recipe.json").read_text())
    assert [row["arm"] for row in rows] == ["ours"] and len(rows[0]["stages"]) == 2
    low, high = rows[0]["interval_95"]
    assert low < rows[0]["kid"] < high and rows[0]["error"] > 0
    assert len(json.loads((folder / "costs.json").read_text())) == 2
    before = (folder / "recipe.json").read_bytes()
    recipe.main()  # measured already
    assert (folder / "recipe.json").read_bytes() == before


@pytest.mark.parametrize("table", ["fashion-mnist", "cifar10", "cifar10-twin", "cifar10-paper", "cifar10-size"])
def test_every_arm_is_a_valid_config(recipe, table):
    from recipe_arms import TABLES

    from sddpm.training import load_config

    found = TABLES[table]
    for name, stages in found.arms.items():
        assert sum(stage.share for stage in stages) == pytest.approx(1), name
        for stage in stages:
            load_config(found.config, [*found.base, *stage.overrides])
    assert found.against in found.arms


def test_an_arm_that_cannot_be_trained_is_refused_before_any_is(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import recipe

    monkeypatch.setattr(sys, "argv", ["recipe.py", "data", str(tmp_path), "--set", "train.no_such_key=1"])
    with pytest.raises(SystemExit, match="2"):
        recipe.main()
    assert "no_such_key" in capsys.readouterr().err and not list(tmp_path.iterdir())
