"""One process at a time writes to a folder, and one that is gone does not stand in the way."""

import json
import os
import subprocess
import sys
import time

import pytest

from sddpm.errors import UserError
from sddpm.files.lock import LOCK, SILENCE, locked
from sddpm.files.processes import this_process

HOLDER = """
import sys, time
from pathlib import Path
from sddpm.files.lock import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of tmp_path."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()


def write_lock(folder, **changes) -> None:
    (folder / LOCK).write_text(json.dumps({**this_process().to_dict(), **changes}))


def test_a_second_process_is_refused_and_hurts_nothing(tmp_path, holder):
    before = (tmp_path / LOCK).read_text()
    with pytest.raises(UserError, match=f"is being written to by process {holder.pid} on "), locked(tmp_path):
        pass
    assert (tmp_path / LOCK).read_text() == before and os.listdir(tmp_path) == [LOCK]


def test_the_lock_of_a_killed_process_is_taken_over_also_while_nobody_has_noticed_its_end(tmp_path, holder):
    holder.kill()
    with open(f"/proc/{holder.pid}/stat") as file:
        while ") Z" not in file.read():  # a zombie
            file.seek(0)
            time.sleep(0.01)
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "age", "free"),
    [
        ({"pid": 2**22 + 1}, 0, True),  # no such process
        ({"started": 0.5}, 0, True),  # another process had its number
        ({}, 10 * SILENCE, False),  # alive, however long it is silent
        ({"machine": "elsewhere"}, 0, False),
        ({"machine": "elsewhere"}, 2 * SILENCE, True),
        ({"pid": "x"}, 0, False),
        ({"pid": "x"}, 2 * SILENCE, True),
    ],
)
def test_who_is_gone(tmp_path, changes, age, free):
    write_lock(tmp_path, **changes)
    os.utime(tmp_path / LOCK, (time.time() - age,) * 2)
    try:
        with locked(tmp_path):
            assert free
    except UserError:
        assert not free


def test_many_at_once_one_at_a_time(tmp_path):
    """Eight processes want a stale lock at the same time; each has it once, none with another."""
    write_lock(tmp_path, pid=2**22 + 1)
    code = """
import sys, time
from pathlib import Path
from sddpm.errors import UserError
from sddpm.files.lock import locked
folder, alone = Path(sys.argv[1]), Path(sys.argv[1], "alone")
for _ in range(400):
    try:
        with locked(folder):
            alone.touch(exist_ok=False)
            time.sleep(0.01)
            alone.unlink()
            print("had it")
            break
    except UserError:
        time.sleep(0.02)
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(8)
    ]
    ends = [process.communicate() for process in processes]
    assert [out for out, _ in ends] == [b"had it\n"] * 8, [err for _, err in ends]


def test_folders_that_were_made_for_the_lock_go_with_it_if_they_stay_empty(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / LOCK).exists()
        _ = 1 / 0
    assert not any(tmp_path.iterdir())
    with locked(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "content").touch()
    assert os.listdir(tmp_path / "a" / "b") == ["content"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"), locked(tmp_path / "file" / "run"):
        pass
