"""Processes that are killed at random times leave nothing half-written, and what goes on ends in the same bits."""

import os
import random
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from sddpm.files.scratch import sweep
from sddpm.pipelines import load_pipeline
from sddpm.training import load_config, train
from sddpm.training.checkpoint import TENSOR_FILES, list_checkpoints
from tests.helpers.killed import kill_until_done, killed
from tests.helpers.tiny import TINY

TIMES = re.compile(rb'"date": "[^"]*"|"seconds": (\{[^}]*\}|[0-9.]+)')
SETTINGS = [*TINY, "train.steps=40", "train.checkpoint_every=5", "train.keep_checkpoints=2"]


def go_on(run: Path) -> None:
    train(load_config("digits", SETTINGS), run, resume=bool(list_checkpoints(run)), progress=False)


def state(run: Path) -> dict[str, bytes]:
    newest = list_checkpoints(run)[-1]
    tensors = {f"{name}/{key}": value.numpy().tobytes() for name in TENSOR_FILES
               for key, value in load_file(newest / name).items()}  # fmt: skip
    weights = load_pipeline(run).unet.state_dict()
    return tensors | {f"saved/{key}": value.numpy().tobytes() for key, value in weights.items()}


def kill_trainings(real: Path, folder: Path, wanted: int) -> None:
    train(load_config("digits", SETTINGS), folder / "whole", progress=False)
    expected, kills, runs, rng = state(folder / "whole"), 0, 0, random.Random(0)
    while kills < wanted:
        run = folder / f"run{runs}"
        kills += kill_until_done(lambda run=run: go_on(run), 2.0, folder / "errors", rng)
        runs += 1
        assert state(run) == expected
        assert not list(run.rglob(".*")), "something was left"
        shutil.rmtree(run)
    print(f"{kills} kills of training in {runs} runs, all with the same bits")


def test_some_kills_of_training(real, tmp_path):
    kill_trainings(real, tmp_path, 3)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_hundred_kills_of_training(real, tmp_path):
    kill_trainings(real, tmp_path, 100)


def run_command(folder: Path, arguments: str) -> Callable[[], None]:
    def call() -> None:
        from sddpm.cli.main import run

        os.chdir(folder)
        os.environ["SDDPM_CACHE"] = str(folder / "cache")
        sys.argv = ["sddpm", *arguments.split()]
        run()

    return call


def content(path: Path) -> dict[str, bytes]:
    """The bytes of a file, or of all in a folder, but for date and times of results."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return {str(file.relative_to(path.parent)): TIMES.sub(b"", file.read_bytes()) for file in files}


MEASURE = "--reference grey.npz --metric fad --fad-weights fad.pth --device cpu --work work --force"
COMMANDS = {
    "sample": ("sample model --count 24 --batch-size 4 --steps 20 --out out.npz --force", ["out.npz"]),
    "evaluate": (
        f"evaluate model {MEASURE} --samples 80 --batch-size 10 --steps 10 --no-copies --out out.json",
        ["out.json"],
    ),
    "guide": (
        f"guide model {MEASURE} --samples 80 --steps 2 --grid 0.8,0.9 --refine 0 --resamples 20 --proxy-images 0 "
        "--store --out out.json",
        ["out.json", "model"],
    ),
    "release": ("release run out --hardware none --force", ["out"]),
    "convert": ("convert reference.pt out --T 2 --force", ["out"]),
    "average": ("average out model model --force", ["out"]),
    "pack": ("pack run out --force", ["out"]),
}


def kill_commands(place: Path, name: str, wanted: int) -> None:
    """Each kill leaves the old outputs, or the new ones, whole; after a sweep nothing else is there. What the killed
    commands kept of their work is used by the next ones, and they end with the same numbers."""
    arguments, outs = COMMANDS[name]
    call, errors, rng = run_command(place, arguments), place.parent / "errors", random.Random(0)
    began = time.monotonic()
    assert not killed(call, 240, errors), errors.read_text()
    whole, kills, longest = [content(place / out) for out in outs], 0, 1.2 * (time.monotonic() - began)
    shutil.rmtree(place / "work", ignore_errors=True)
    before = sorted(path.name for path in place.iterdir())
    while kills < wanted:
        if killed(call, rng.uniform(0, longest), errors):
            kills += 1
        else:
            longest *= 0.9
            shutil.rmtree(place / "work", ignore_errors=True)
        sweep(place)
        assert sorted({path.name for path in place.iterdir()} - {"work"}) == before
        assert [content(place / out) for out in outs] == whole
    assert not killed(call, 240, errors), errors.read_text()
    assert [content(place / out) for out in outs] == whole
    print(f"{kills} kills of {name}")


@pytest.mark.parametrize("name", ["sample", "average", "evaluate"])
def test_some_kills(place, name):
    kill_commands(place, name, 2)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", COMMANDS)
def test_twenty_kills(place, name):
    kill_commands(place, name, 20)


STUDENT = "distill run student --evaluations 2 --set train.steps=20 --set train.checkpoint_every=4 --device cpu"


def kill_distillations(place: Path, wanted: int) -> None:
    """One command line over and over, with --resume from the first kill on, ends in the same bits."""
    student, errors, rng, kills, runs = place / "student", place.parent / "errors", random.Random(0), 0, 0
    began = time.monotonic()
    assert not killed(run_command(place, STUDENT), 240, errors), errors.read_text()
    expected, longest = state(student), 1.2 * (time.monotonic() - began)
    while kills < wanted:
        shutil.rmtree(student)
        kills += kill_until_done(run_command(place, f"{STUDENT} --resume"), longest, errors, rng)
        runs += 1
        assert state(student) == expected
    print(f"{kills} kills of distil in {runs} runs, all with the same bits")


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_twenty_kills_of_distillation(place):
    kill_distillations(place, 20)
