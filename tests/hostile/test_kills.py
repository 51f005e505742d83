"""Processes that are killed at random times leave nothing half-written, and what goes on ends in the same bits."""

import os
import random
import shutil
import sys
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
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return {str(file.relative_to(path.parent)): file.read_bytes() for file in files}


COMMANDS = {
    "sample": ("sample model --count 24 --batch-size 4 --steps 20 --out out.npz --force", "out.npz"),
    "release": ("release run out --hardware none --force", "out"),
    "convert": ("convert reference.pt out --T 2 --force", "out"),
    "average": ("average out model model --force", "out"),
    "pack": ("pack run out --force", "out"),
}


def kill_commands(place: Path, name: str, wanted: int) -> None:
    """Each kill leaves the old output, or the new one, whole; after a sweep nothing else is there."""
    arguments, out = COMMANDS[name]
    call, errors, rng = run_command(place, arguments), place.parent / "errors", random.Random(0)
    assert not killed(call, 120, errors)
    whole, kills, longest = content(place / out), 0, 3.0
    before = sorted(path.name for path in place.iterdir())
    while kills < wanted:
        if killed(call, rng.uniform(0, longest), errors):
            kills += 1
        else:
            longest *= 0.7
        sweep(place)
        assert sorted(path.name for path in place.iterdir()) == before
        assert content(place / out) == whole
    assert not killed(call, 120, errors)
    assert content(place / out) == whole
    print(f"{kills} kills of {name}")


@pytest.mark.parametrize("name", ["sample", "average"])
def test_some_kills(place, name):
    kill_commands(place, name, 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_twenty_kills(place, name):
    kill_commands(place, name, 20)
