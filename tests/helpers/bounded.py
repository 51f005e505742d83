"""Runs an action in a fork of this process under a limit of memory and time, and tells how it ended.

A fork of a process that has everything imported starts in milliseconds, so that thousands of hostile inputs are tried.
"""

import os
import pickle
import resource
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sddpm.errors import UserError
from tests.helpers.killed import own_locks

MEMORY, SECONDS = 1 << 30, 10


@dataclass(frozen=True)
class Outcome:
    """how: "right" with what the action returned, "refused" with the message of a UserError, or "fault" with what else
    happened: a traceback, a signal, more than its time."""

    how: str
    what: Any


def bounded(action: Callable[[], Any], *, memory: int = MEMORY, seconds: int = SECONDS) -> Outcome:
    """Run `action` in a fork that may take so much more memory than this process has, and so many seconds."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        own_locks()
        os.close(reading)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        _limit(memory)
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(pickle.dumps(_attempt(action)))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        content = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return Outcome("fault", f"ended by {signal.Signals(os.WTERMSIG(status)).name}")
    if not content:
        return Outcome("fault", f"ended with {os.waitstatus_to_exitcode(status)} and no answer")
    return pickle.loads(content)


def _limit(memory: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _attempt(action: Callable[[], Any]) -> Outcome:
    try:
        return Outcome("right", action())
    except UserError as error:
        return Outcome("refused", str(error))
    except BaseException:
        return Outcome("fault", traceback.format_exc())


def command(arguments: list[str], folder: Path, **limits: int) -> tuple[int | None, str, str]:
    """Run `sddpm ARGUMENTS` in `folder`; its exit code, None if it was killed, and what it printed."""
    out, err = folder.parent / f"{folder.name}.out", folder.parent / f"{folder.name}.err"

    def call() -> int:
        import sys

        from sddpm.cli.main import run

        for stream, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        os.chdir(folder)
        os.environ["TMPDIR"] = str(folder.parent)
        sys.argv = ["sddpm", *arguments]
        try:
            run()
        except SystemExit as end:
            code = end.code
        sys.stdout.flush()
        sys.stderr.flush()
        return int(code or 0) if not isinstance(code, str) else 1

    found = bounded(call, **limits)
    said, failed = (path.read_text(errors="replace") if path.exists() else "" for path in (out, err))
    return (found.what, said, failed) if found.how == "right" else (None, said, f"{failed}{found.what}")
