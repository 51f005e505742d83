"""Run folders: the model follows the newest checkpoint, one process writes at a time, terminals may go away."""

import os
import shutil
import signal
import subprocess
import time

import pytest
import torch
from safetensors.torch import load_file

from sddpm.errors import UserError
from sddpm.files.lock import LOCK, locked
from sddpm.guidance import store_x0_scale
from sddpm.pipelines import load_pipeline
from sddpm.training import read_metrics, train
from sddpm.training.checkpoint import checkpoint_path, list_checkpoints
from sddpm.training.history import stages_of

SDDPM = "import sys; from sddpm.cli.main import run; sys.argv[0] = 'sddpm'; run()"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny):
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(tiny(), folder, progress=False)
    return folder


def lose_the_model(run):
    shutil.rmtree(run / "model")


def keep_an_old_model(run):
    file = run / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.copyfile(checkpoint_path(run, 3) / "ema.safetensors", file)


def damage_the_model(run):
    (run / "model" / "model_index.json").unlink()


@pytest.mark.parametrize("harm", [lose_the_model, keep_an_old_model, damage_the_model])
def test_resuming_ends_with_the_model_of_the_newest_checkpoint(finished, tiny, tmp_path, harm):
    run = shutil.copytree(finished, tmp_path / "run")
    harm(run)
    (run / "loss.png").unlink()
    assert train(tiny(), run, resume=True, progress=False).step == 6
    model, average = load_pipeline(run).unet.state_dict(), load_file(checkpoint_path(run, 6) / "ema.safetensors")
    assert model.keys() == average.keys() and all(torch.equal(model[name], average[name]) for name in model)
    assert (run / "loss.png").exists()


def test_resuming_a_finished_run_keeps_what_is_stored_with_its_model(finished, tiny, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    store_x0_scale(run, 1.25)
    train(tiny(), run, resume=True, progress=False)
    assert load_pipeline(run).x0_scale == 1.25


@pytest.fixture
def stillborn(finished, tmp_path):
    """A run that ended before its first checkpoint, which was due at step 3."""
    run = shutil.copytree(finished, tmp_path / "run")
    for part in ("checkpoints", "model"):
        shutil.rmtree(run / part)
    rows = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(rows[:3]))
    return run


def test_a_run_that_ended_before_its_first_checkpoint_starts_again(stillborn, tiny):
    run = stillborn
    with pytest.raises(UserError, match=r"nothing to resume: .* leave out `resume` to start the run"):
        train(tiny(), run, resume=True, progress=False)
    assert train(tiny(), run, progress=False).step == 6
    assert [row["step"] for row in read_metrics(run)] == [1, 2, 3, 4, 5, 6]


def test_a_run_folder_whose_name_is_not_utf8_is_refused_at_once(tiny, tmp_path):
    with pytest.raises(UserError, match="is not UTF-8: choose another one"):
        train(tiny(), tmp_path / os.fsdecode(b"z\xe9"), progress=False)
    assert not list(tmp_path.iterdir())


def keep_a_config(run):
    (run / "metrics.jsonl").unlink()
    (run / "config.yaml").write_text("# my best settings\ntrain: {steps: 6}\n")


def train_longer(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "loss": 0.5}\n')


@pytest.mark.parametrize("change", [keep_a_config, train_longer])
def test_a_config_or_metrics_of_something_else_are_not_written_over(stillborn, tiny, change):
    change(stillborn)
    before = {path: path.read_bytes() for path in stillborn.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="not empty"):
        train(tiny(), stillborn, progress=False)
    assert {path: path.read_bytes() for path in stillborn.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("besides", ["model", "notes.txt"])
def test_a_folder_with_anything_besides_does_not_start_again(stillborn, tiny, besides):
    (stillborn / besides).touch()
    with pytest.raises(UserError, match="not empty"):
        train(tiny(), stillborn, progress=False)
    assert (stillborn / besides).exists()


def test_a_locked_run_is_refused_and_left_alone(finished, tiny, tmp_path, start):
    run = shutil.copytree(finished, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    with locked(run):
        for arguments in (["--resume"], ["--set", "train.steps=9", "--resume"]):
            process = start(["-c", SDDPM, "train", "--out", run, *arguments])
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 2
            assert errors == (
                f"error: {run} is being written to by process {os.getpid()} on {os.uname().nodename}: wait for it or "
                f"stop it, or delete {run / LOCK} if that process has ended\n"
            )
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def options(tiny_settings, steps):
    settings = [*tiny_settings, f"train.steps={steps}", "train.checkpoint_every=5"]
    return [word for setting in settings for word in ("--set", setting)]


@pytest.mark.parametrize("target", ["closed pipe", "/dev/full"])
def test_training_goes_on_when_nobody_reads_what_it_says(tmp_path, tiny_settings, target):
    run = tmp_path / "run"
    reading, writing = os.pipe()
    if target != "closed pipe":
        writing = os.open(target, os.O_WRONLY)
    command = [os.sys.executable, "-c", SDDPM, "train", "digits", "--out", run, *options(tiny_settings, 10)]  # type: ignore[attr-defined]
    process = subprocess.Popen(command, stdout=writing, stderr=writing)
    os.close(reading)
    os.close(writing)
    assert process.wait(timeout=300) == 0
    assert [path.name for path in list_checkpoints(run)][-1] == "step-0000010"


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no terminals to lose")
def test_training_goes_on_after_a_hangup(tmp_path, start, tiny_settings):
    run = tmp_path / "run"
    process = start(["-c", SDDPM, "train", "digits", "--out", run, *options(tiny_settings, 30)])
    end = time.monotonic() + 300
    while not (run / "metrics.jsonl").exists() or not (run / "metrics.jsonl").read_text():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGHUP)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert out == f"trained 30 steps; the model is in {run / 'model'}\n"


def test_what_a_lost_run_left_does_not_mix_with_the_next(tiny, tmp_path):
    """With its snapshots, and without the history of a model that it no longer starts from."""
    run = tmp_path / "run"
    train(tiny("train.steps=1"), tmp_path / "first", progress=False)
    ema = ("train.steps=2", "train.ema_power=[0.05,0.1]", "train.ema_snapshot_every=1")
    train(tiny(*ema), run, init_from=tmp_path / "first", progress=False)
    assert [stage.steps for stage in stages_of(run)] == [1, 2]
    shutil.rmtree(run / "checkpoints")
    shutil.rmtree(run / "model")
    assert list((run / "snapshots").iterdir())
    train(tiny(*ema), run, progress=False)
    assert [stage.steps for stage in stages_of(run)] == [2]
    train(tiny(*ema), run, resume=True, progress=False)
    assert [stage.steps for stage in stages_of(run)] == [2]


def test_resuming_keeps_the_history(tiny, tmp_path):
    train(tiny("train.steps=1"), tmp_path / "first", progress=False)
    train(tiny("train.steps=2"), tmp_path / "run", init_from=tmp_path / "first", progress=False)
    train(tiny("train.steps=3"), tmp_path / "run", resume=True, progress=False)
    assert [stage.steps for stage in stages_of(tmp_path / "run")] == [1, 3]


@pytest.mark.parametrize(("schedule", "noted"), [("cosine", True), ("linear", True), ("constant", False)])
def test_more_steps_on_a_decaying_learning_rate_are_noted(tiny, tmp_path, capsys, schedule, noted):
    train(tiny("train.steps=2", f"train.lr_schedule={schedule}"), tmp_path / "run")
    assert "was planned for" not in capsys.readouterr().err
    train(tiny("train.steps=3", f"train.lr_schedule={schedule}"), tmp_path / "run", resume=True)
    assert (
        f"planned for 2 steps and now has 3: its learning rate follows the {schedule}" in capsys.readouterr().err
    ) == noted
