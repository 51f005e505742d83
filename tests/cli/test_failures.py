"""How a command ends that does not end well."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tqdm import tqdm

from sddpm.cli import main
from sddpm.cli.failures import fail
from sddpm.errors import UserError


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("T must be at least 1"), 2, "error: T must be at least 1\n"),
        (UserError("no model at a\nb\x1b[31m"), 2, "error: no model at a b [31m\n"),
        (OSError(errno.EACCES, "Permission denied", "x.png"), 2, "error: x.png: Permission denied\n"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: No space left on device\n"),
        (MemoryError(), 2, "error: this machine has too little memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), 2, "error: this machine has too little memory"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_one_line_and_its_code(capsys, error, code, line):
    assert fail(error) == code
    err = capsys.readouterr().err
    assert err.startswith(line) and err.count("\n") == (code != 130)


def test_torch_says_that_memory_ran_out_in_the_way_that_is_known_here(capsys):
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60, dtype=torch.uint8)
    assert fail(error.value) == 2 and "too little memory" in capsys.readouterr().err


def test_what_nobody_expected_is_one_line_and_a_file(sddpm, monkeypatch, tmp_path):
    def broken():
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(main, "app", broken)
    code, out, err = sddpm("anything")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("error: unexpected ZeroDivisionError: division by zero; ")
    report = Path(err.rstrip().rpartition(" ")[2])
    assert report.parent == tmp_path and "in broken" in report.read_text()


def test_an_error_has_a_line_of_its_own_below_a_bar(capsys):
    bar = tqdm(total=3, file=sys.stderr, leave=False)
    bar.update()
    fail(UserError("too bad"))
    assert capsys.readouterr().err.endswith("\nerror: too bad\n")


WRITING = """
import time
from pathlib import Path
from sddpm.cli.app import app
from sddpm.cli.main import run
from sddpm.files import atomic_path

@app.command()
def write(path: Path):
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        print("writing", flush=True)
        time.sleep(60)

run()
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_leaves_nothing_half_written(tmp_path, name):
    (tmp_path / "out").write_text("old")
    process = subprocess.Popen([sys.executable, "-c", WRITING, "write", tmp_path / "out"], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"writing\n"
    time.sleep(0.1)
    process.send_signal(signal.Signals[name])
    assert process.wait(timeout=60) == 128 + signal.Signals[name]
    assert os.listdir(tmp_path) == ["out"] and (tmp_path / "out").read_text() == "old"


@pytest.mark.parametrize(("arguments", "code"), [("list solvers --quiet", 0), ("info nothing", 2)])
def test_a_closed_stderr_changes_nothing_else(arguments, code):
    command = ["sh", "-c", f"{sys.executable} -m sddpm {arguments} 2>&-"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == code and ("ddim" in done.stdout) == (code == 0) and "error" not in done.stdout
