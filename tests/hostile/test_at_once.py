"""Several processes at once: they share a training or wait outside it, and what they all write is whole."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sddpm.files.scratch import sweep
from sddpm.training import load_config, train
from sddpm.training.checkpoint import list_checkpoints
from tests.helpers.killed import ended, forked, killed
from tests.hostile.test_kills import COMMANDS, SETTINGS, content, go_on, run_command, state

TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--rdzv-backend", "c10d",
            "--rdzv-endpoint", "localhost:0"]  # fmt: skip
BUSY = "is being written to by process"


def all_at_once(actions: Sequence[Callable[[], Any]], errors: Path) -> list[tuple[int, str]]:
    """Exit code and output of each action, run in forks side by side."""
    files = [errors.with_name(f"{errors.name}{i}") for i in range(len(actions))]
    children = [forked(action, file) for action, file in zip(actions, files, strict=True)]
    return [(ended(child), file.read_text()) for child, file in zip(children, files, strict=True)]


def write_at_once(place: Path, name: str, processes: int, rounds: int) -> None:
    """All of them replace the same outputs: each ends well, and what is there in the end is whole."""
    arguments, outs = COMMANDS[name]
    call, errors = run_command(place, arguments), place.parent / "errors"
    assert not killed(call, 240, errors), errors.read_text()
    whole, before = [content(place / out) for out in outs], sorted(path.name for path in place.iterdir())
    for _ in range(rounds):
        for code, text in all_at_once([call] * processes, errors):
            assert code == 0, text
        sweep(place)
        assert [content(place / out) for out in outs] == whole
        assert sorted(path.name for path in place.iterdir()) == before
    print(f"{processes * rounds} processes of {name}, {processes} at a time")


def train_at_once(folder: Path, processes: int, rounds: int) -> None:
    """One of them trains, and the others say so; kill the one that trains, and another goes on."""
    train(load_config("digits", SETTINGS), folder / "whole", progress=False)
    expected, errors, rng = state(folder / "whole"), folder / "errors", random.Random(0)
    trained = refused = 0
    for i in range(rounds):
        run = folder / f"run{i}"
        killed(lambda run=run: go_on(run), rng.uniform(0, 2), errors)
        while not list_checkpoints(run) or list_checkpoints(run)[-1].name != "step-0000040":
            found = all_at_once([lambda run=run: go_on(run)] * processes, errors)
            assert all(code == 0 or (code == 2 and BUSY in text) for code, text in found), found
            assert any(code == 0 for code, _ in found), found
            trained += sum(code == 0 for code, _ in found)
            refused += sum(code == 2 for code, _ in found)
        assert state(run) == expected
        shutil.rmtree(run)
    print(f"{trained + refused} processes at one run: {trained} trained, {refused} were refused")


def kill_all_of(run: Path) -> None:
    """Kill every process whose command line names `run`: the launcher and what it started, which are no one group."""
    while found := [path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if names(path, run)]:
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.01)


def names(cmdline: Path, run: Path) -> bool:
    try:
        return os.fsencode(run) in cmdline.read_bytes().split(b"\0")
    except OSError:  # it has ended
        return False


def kill_two_processes(folder: Path, wanted: int) -> None:
    """A training of two processes, killed as a whole at random times, ends in the bits of one that was not."""
    script = folder / "command.py"
    script.write_text("from sddpm.cli.main import run; run()\n")
    options = [word for setting in SETTINGS for word in ("--set", setting)]

    def began(run: Path, log: Path) -> subprocess.Popen:
        what = ["--resume"] if list_checkpoints(run) else ["digits", *options]
        arguments = [sys.executable, *TORCHRUN, script, "train", "--device", "cpu", "--out", run, *what]
        with log.open("w") as file:
            return subprocess.Popen(list(map(str, arguments)), stdout=file, stderr=file)

    whole, log, rng, kills = folder / "whole", folder / "log", random.Random(0), 0
    begin = time.monotonic()
    assert began(whole, log).wait(timeout=300) == 0, log.read_text()
    expected, longest = state(whole), 1.1 * (time.monotonic() - begin)
    while kills < wanted:
        run = folder / "run"
        while True:
            process = began(run, log)
            try:
                assert process.wait(timeout=rng.uniform(0.3, 1) * longest) == 0, log.read_text()
                break
            except subprocess.TimeoutExpired:
                kill_all_of(run)
                process.wait()
                kills += 1
                longest *= 1.05
        assert state(run) == expected
        shutil.rmtree(run)
    print(f"{kills} kills of trainings of two processes, all with the same bits")


def test_two_average_at_once(place):
    write_at_once(place, "average", 2, 2)


def test_two_train_at_once(real, tmp_path):
    train_at_once(tmp_path, 2, 1)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", COMMANDS)
def test_four_at_once(place, name):
    write_at_once(place, name, 4, 3)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_four_train_at_once(real, tmp_path):
    train_at_once(tmp_path, 4, 5)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_kills_of_two_processes(tmp_path):
    kill_two_processes(tmp_path, 5)
