"""Trainings of the benchmarks: half a training is never taken for a whole one, nor one for another."""

import json
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from sddpm.errors import UserError
from sddpm.pretrained import find_pretrained
from sddpm.training import TrainResult, load_config, train
from sddpm.training.checkpoint import list_checkpoints
from tests.helpers.tiny import TINY

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def trainings(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import trainings

    return trainings


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """A run of two steps with a checkpoint of each."""
    run = tmp_path_factory.mktemp("trainings") / "complete"
    train(load_config("digits", TINY), run, progress=False)
    return run


@pytest.fixture
def run(complete, tmp_path):
    """A copy of the complete run."""
    return Path(shutil.copytree(complete, tmp_path / "runs" / "run"))


@pytest.fixture
def half(run):
    """The run as a process leaves it that is killed before its last checkpoint: with all its metrics and a model."""
    shutil.rmtree(list_checkpoints(run)[-1])
    return run


def last_step(run):
    return list_checkpoints(run)[-1].name


def test_a_run_is_finished_at_its_last_checkpoint_with_that_model(trainings, run, tmp_path):
    assert trainings.finished(run) and not trainings.finished(tmp_path)
    earlier = tmp_path / "earlier"
    train(load_config("digits", [*TINY, "train.steps=1"]), earlier, progress=False)
    shutil.rmtree(run / "model")
    assert not trainings.finished(run)
    shutil.copytree(earlier / "model", run / "model")  # a process that was killed after the last checkpoint
    assert not trainings.finished(run)
    trainings.trained(load_config("digits", TINY), run)
    assert trainings.finished(run)


def test_what_a_killed_process_leaves_is_trained_on(trainings, half):
    assert not trainings.finished(half)
    assert trainings.trained(load_config("digits", TINY), half) == half
    assert trainings.finished(half) and last_step(half) == "step-0000002"


@pytest.mark.parametrize("change", ["train.lr=0.5", "train.steps=3", "model.T=3"])
def test_a_run_with_other_settings_is_refused(trainings, run, change):
    before = (run / "config.yaml").read_bytes()
    with pytest.raises(UserError) as error:
        trainings.trained(load_config("digits", [*TINY, change]), run)
    assert str(run) in str(error.value) and "\n" not in str(error.value)
    assert change.split("=")[0] in str(error.value) or "training of 2 steps, not 3" in str(error.value)
    assert (run / "config.yaml").read_bytes() == before


def test_places_are_no_settings(trainings, run):
    """Those of the data and of the teacher; thresholds by layer are those of the model that a training starts from."""
    state = run / "checkpoints" / last_step(run) / "state.json"
    content = json.loads(state.read_text())
    content["config"]["train"]["teacher"] = "/before/teacher"
    content["config"]["model"]["v_threshold"] = {"encoder.neuron": 0.5}
    state.write_text(json.dumps(content))
    thresholds = json.dumps({"encoder.neuron": 0.6})
    config = load_config("digits", [*TINY, 'data.path="/elsewhere"', f"model.v_threshold={thresholds}"])

    def taught_by(teacher):
        return config.model_copy(update={"train": config.train.model_copy(update={"teacher": teacher})})

    trainings.check_settings(run, taught_by("/now/teacher"))
    with pytest.raises(UserError, match=r"train\.teacher"):
        trainings.check_settings(run, taught_by("/now/another"))


def test_a_signal_ends_the_program(trainings, monkeypatch, tmp_path):
    stopped = TrainResult(tmp_path, 1, 0.5, "SIGTERM")
    monkeypatch.setattr(trainings, "train", lambda *_, **__: stopped)
    with pytest.raises(SystemExit, match="stopped by SIGTERM"):
        trainings.trained(load_config("digits", TINY), tmp_path / "run")


def test_as_a_command(run):
    command = [sys.executable, BENCHMARKS / "trainings.py"]
    words = [
        subprocess.run([*command, folder], capture_output=True, text=True, check=True).stdout for folder in (run, "")
    ]
    assert words == ["finished\n", "unfinished\n"]


def test_losses_are_those_of_a_complete_run(trainings, half):
    from loss_curves import losses

    assert len(losses(half, "auto", "digits", list(TINY))) == 2
    assert last_step(half) == "step-0000002"


def test_only_finished_runs_of_cifar10_are_measured(trainings, run):
    from cifar10_measure import Bench, Measurement

    run.rename(run.with_name("leg-a"))
    there = run.with_name("leg-a")
    bench = Bench(*(there.parent,) * 5)
    assert list(Measurement(bench, ["spiking", "twin"]).models) == ["spiking"]
    shutil.rmtree(list_checkpoints(there)[-1])
    assert list(Measurement(bench, ["spiking", "twin"]).models) == []


class TestRecipe:
    def test_norms_are_measured_after_a_kill_too_and_once(self, trainings, monkeypatch, tmp_path):
        import recipe

        calls = []

        def measure_norms(model, data):
            calls.append(model)
            if len(calls) == 1:
                raise KeyboardInterrupt

        monkeypatch.setattr(recipe, "measure_norms", measure_norms)
        arguments = (recipe.Stage(renormed=True), load_config("digits", TINY), None, 2, tmp_path / "run", tmp_path)
        with pytest.raises(KeyboardInterrupt):
            recipe.train_stage(*arguments)
        for _ in range(2):
            recipe.train_stage(*arguments)
        assert calls == [tmp_path / "run" / "model"] * 2

    def test_other_budgets_and_settings_have_other_folders(self, trainings, monkeypatch, tmp_path):
        import recipe

        folders = []
        monkeypatch.setattr(recipe, "cost_of", lambda *_: 1.0)
        monkeypatch.setattr(recipe, "train_stage", lambda stage, config, start, steps, run, data: folders.append(run))
        monkeypatch.setattr(recipe, "read_metrics", lambda _: [{"loss": 0.5}])
        monkeypatch.setattr(recipe, "error_on_test_images", lambda *_: None)
        score = Namespace(value=1.0, interval=(0.0, 2.0))
        monkeypatch.setattr(recipe, "SCORES", {"fad": lambda *_: score})
        for minutes, settings in ((5.0, []), (2.5, []), (5.0, ["train.lr=0.5"]), (5.0, [])):
            args = Namespace(data=tmp_path, out=tmp_path, minutes=minutes, set=settings)
            recipe.train_arm(recipe.TABLES["fashion-mnist"], "as it is", 0, recipe.Rows(None), args)
        assert len(set(folders)) == 3 and folders[0] == folders[3]
        assert folders[1] == tmp_path / "runs" / "as-it-is-0-2.5min-0"


class TestTimeSteps:
    def arguments(self, tmp_path, *more):
        return ["time_steps.py", *(str(tmp_path / name) for name in ("data", "work", "results")), *more]

    def begun(self, folder, steps):
        checkpoint = folder / "checkpoints" / "step-0000050"
        checkpoint.mkdir(parents=True)
        (checkpoint / "state.json").write_text(json.dumps({"step": 50, "config": {"train": {"steps": steps}}}))

    def test_runs_with_other_steps_are_refused_before_any_training(self, trainings, monkeypatch, tmp_path):
        import time_steps

        runs, trained = tmp_path / "work" / "runs", []
        self.begun(runs / "fashion-quantized-2-0", 200)
        self.begun(runs / "fashion-T2-0", 150)
        self.begun(runs / "fashion-T2-0-four", 150)
        monkeypatch.setattr(time_steps, "networks", lambda T, seed, args: trained.append((T, seed)))
        common = ("--T", "1", "2", "--seeds", "0", "--only-train")
        monkeypatch.setattr(sys, "argv", self.arguments(tmp_path, *common))
        time_steps.main()  # the defaults
        assert trained == [(1, 0), (2, 0)]
        for option, folder in {
            "--quantized-steps": "fashion-quantized-2-0",
            "--spike-steps": "fashion-T2-0",
            "--distil-steps": "fashion-T2-0-four",
        }.items():
            monkeypatch.setattr(sys, "argv", self.arguments(tmp_path, *common, option, "300"))
            with pytest.raises(UserError, match=f"{folder} is a training of"):
                time_steps.main()
        assert len(trained) == 2

    def test_a_student_is_a_training_like_the_others(self, trainings, monkeypatch, tmp_path):
        import time_steps

        seen = []
        monkeypatch.setattr(time_steps, "trained", lambda config, *rest: seen.append((config, *rest)))
        teacher = find_pretrained("fashion-mnist")
        time_steps.distilled(teacher, tmp_path / "student", 7)
        config, run, start, _ = seen[0]
        assert (config.train.steps, config.distill.evaluations, config.distill.x0_scale) == (7, 4, 1.01)
        assert (run, start) == (tmp_path / "student", teacher)


class TestDistillationWays:
    def test_other_minutes_have_other_folders(self, trainings, monkeypatch, tmp_path):
        import distillation_ways as ways

        monkeypatch.setattr(ways, "steps_for", lambda *_: 1)
        monkeypatch.setattr(ways, "trained", lambda config, run, *_: run)
        found = []
        for minutes in (15, 2.5):
            args = Namespace(data=tmp_path, work=tmp_path, minutes=minutes)
            found += [*ways.in_spikes(args), *ways.halving(args)]
        names = [run.name for run in found]
        assert len(set(names)) == 10 and {"fashion-in-spikes-15min", "fashion-halved-4-2.5min"} <= set(names)

    def test_rows_are_of_as_many_samples(self, trainings, monkeypatch, tmp_path, capsys):
        import distillation_ways as ways

        def row_of(way, args):
            return {"way": way, "minutes": args.minutes, "samples": args.samples, "fad": [args.samples]}

        monkeypatch.setattr(ways, "row_of", row_of)
        for samples in ("70", "80", "70"):
            monkeypatch.setattr(sys, "argv", ["ways", "data", str(tmp_path), "spikes", "--samples", samples])
            ways.main()
        assert [json.loads(line)["fad"] for line in capsys.readouterr().out.splitlines()] == [[70], [80], [70]]
        assert len(json.loads((tmp_path / "ways.json").read_text())) == 2


def test_bad_input_is_a_line_and_exit_code_2(trainings, capsys):
    from measuring import run_benchmark

    def main():
        raise UserError("a run is in the way")

    with pytest.raises(SystemExit, match="2"):
        run_benchmark(main)
    assert capsys.readouterr().err == "error: a run is in the way\n"
