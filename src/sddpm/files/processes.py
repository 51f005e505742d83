"""Who is writing: a process by its machine, its number and when it started, so that one that is gone is known as such.

A process number alone is used again after some time, and means nothing on another machine.
"""

import os
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True)
class ProcessIdentity:
    """machine: host name and, on Linux, boot and process namespace (containers number their own processes); pid: the
    process's number; started: when, in a clock of the machine."""

    machine: str
    pid: int
    started: float

    def running(self) -> bool | None:
        """Whether this process is alive; None for one of another machine, of which nothing is known here."""
        if self.machine != _machine():
            return None
        return _started(self.pid) == self.started

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `identity_from` reads it."""
        return asdict(self)


def this_process() -> ProcessIdentity:
    """The identity of the process that calls."""
    return ProcessIdentity(_machine(), os.getpid(), _started(os.getpid()) or 0.0)


def identity_from(content: Any) -> ProcessIdentity | None:
    """What `to_dict` made; None of anything else."""
    try:
        return ProcessIdentity(str(content["machine"]), int(content["pid"]), float(content["started"]))
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


@cache
def _machine() -> str:
    parts = [platform.node()]
    with suppress(OSError):  # no Linux
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


def _started(pid: int) -> float | None:
    """None for a process that is gone, or that has ended and only waits for its parent to notice."""
    if Path("/proc/self/stat").exists():  # ticks since boot; psutil's time moves when the clock is set
        try:
            state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (OSError, ValueError):
            return None
        return None if state in "ZX" else float(fields[18])
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None
