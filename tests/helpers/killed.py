"""Forks that are killed at a random time."""

import os
import random
import signal
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sddpm.errors import UserError


def own_locks() -> None:
    """In a fork: tqdm's lock is shared by all processes, and would be held for ever by one that is killed."""
    tqdm.set_lock(threading.RLock())


def forked(action: Callable[[], Any], errors: Path) -> int:
    """Begin `action` in a fork, whose output goes to `errors`; its id. It exits with 2 for a `UserError`."""
    child = os.fork()
    if child == 0:
        own_locks()
        target = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(target, 1)
        os.dup2(target, 2)
        try:
            action()
        except SystemExit as end:
            os._exit(int(end.code or 0))
        except UserError as error:
            os.write(2, f"error: {error}".encode())
            os._exit(2)
        except BaseException:
            traceback.print_exc()
            os._exit(99)
        os._exit(0)
    return child


def ended(child: int) -> int:
    """Wait for a fork; its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed(action: Callable[[], Any], after: float, errors: Path, number: int = signal.SIGKILL) -> bool:
    """Run `action` in a fork, and kill it after so many seconds. Whether it was killed; else it had ended well.

    Raises:
        AssertionError: it ended before, and not well; with what it wrote to `errors`.
    """
    child = forked(action, errors)
    end = time.monotonic() + after
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0, errors.read_text()
            return False
        time.sleep(0.002)
    os.kill(child, number)
    os.waitpid(child, 0)
    return True


def kill_until_done(action: Callable[[], Any], longest: float, errors: Path, rng: random.Random) -> int:
    """Repeat an action that goes on where it was, killed at random times, until it ends. How often it was killed."""
    kills = 0
    while killed(action, rng.uniform(0, longest), errors):
        kills += 1
        longest *= 1.02  # it ends also on a machine that is slow just now
    return kills
