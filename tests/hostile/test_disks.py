"""Disks that fill up: one line and exit code 2, the old output whole, nothing left over; training goes on later."""

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from sddpm.training import load_config, train
from tests.helpers.bounded import command
from tests.hostile.test_kills import COMMANDS, SETTINGS, STUDENT, content, go_on, state

FULL = "No space left on device"


@pytest.fixture
def disk(tmp_path):
    """A disk of 32 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def leave(disk: Path, room: int) -> None:
    """Fill the disk but for so many bytes."""
    system = os.statvfs(disk)
    (disk / "filler").touch()
    if (size := system.f_bavail * system.f_frsize - room) > 0:
        with (disk / "filler").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)


def tried(arguments: str, place: Path) -> bool:
    """Whether the command ended well; else it must have said that the disk is full, in one line."""
    code, _, err = command(arguments.split(), place, memory=4 << 30, seconds=240)
    if code == 0:
        return True
    last = err.strip().splitlines()[-1]
    assert code == 2 and last.startswith("error: ") and FULL in last and "Traceback" not in err, err[-3000:]
    return False


def fill_commands(real: Path, disk: Path, name: str, wanted: int) -> None:
    place = shutil.copytree(real, disk, dirs_exist_ok=True)
    arguments, outs = COMMANDS[name]
    assert tried(arguments, place)
    whole, rng, full = [content(place / out) for out in outs], random.Random(0), 0
    kept = [path for path in (*(place / out for out in outs), place / "work") if path.exists()]
    needed = sum(len(file) + 4096 for path in kept for file in content(path).values())
    shutil.rmtree(place / "work", ignore_errors=True)
    before = sorted(path.name for path in place.iterdir())
    while full < wanted:
        leave(disk, rng.randrange(needed))
        full += not tried(arguments, place)
        (disk / "filler").unlink()
        shutil.rmtree(place / "work", ignore_errors=True)
        assert sorted(path.name for path in place.iterdir()) == before
        assert [content(place / out) for out in outs] == whole
    assert tried(arguments, place)
    assert [content(place / out) for out in outs] == whole
    print(f"{full} full disks under {name}")


def fill_trainings(folder: Path, disk: Path, wanted: int) -> None:
    """However little room a run had, once there is more it ends with the bits of one that had enough."""
    train(load_config("digits", SETTINGS), folder / "whole", progress=False)
    expected, rng, full = state(folder / "whole"), random.Random(0), 0
    needed = sum(len(file) + 4096 for file in content(folder / "whole").values())
    options = " ".join(f"--set {setting}" for setting in SETTINGS)
    while full < wanted:
        leave(disk, rng.randrange(int(1.3 * needed)))
        full += not tried(f"train digits --out run {options}", disk)
        (disk / "filler").unlink()
        go_on(disk / "run")
        assert state(disk / "run") == expected
        assert not list(disk.rglob(".*")), "something was left"
        shutil.rmtree(disk / "run")
    print(f"{full} full disks under training")


def fill_distillations(real: Path, disk: Path, wanted: int) -> None:
    place = shutil.copytree(real, disk, dirs_exist_ok=True)
    assert tried(STUDENT, place)
    expected, rng, full = state(place / "student"), random.Random(0), 0
    needed = sum(len(file) + 4096 for file in content(place / "student").values())
    while full < wanted:
        shutil.rmtree(place / "student", ignore_errors=True)
        leave(disk, rng.randrange(needed))
        full += not tried(STUDENT, place)
        (disk / "filler").unlink()
        assert tried(f"{STUDENT} --resume", place)
        assert state(place / "student") == expected
    print(f"{full} full disks under distil")


def test_a_full_disk_under_a_command(real, disk):
    fill_commands(real, disk, "average", 2)


def test_a_full_disk_under_training(tmp_path, disk):
    fill_trainings(tmp_path, disk, 2)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", COMMANDS)
def test_ten_full_disks(real, disk, name):
    fill_commands(real, disk, name, 10)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_twenty_full_disks_under_training(tmp_path, disk):
    fill_trainings(tmp_path, disk, 20)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_ten_full_disks_under_distillation(real, disk):
    fill_distillations(real, disk, 10)
