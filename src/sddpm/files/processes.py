"""Identifies a writing process by machine, number and start time, so that an ended process is recognised.

A process number alone is reused after some time, and has no meaning on another machine.
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
    process number; started: start time, in a clock of the machine."""

    machine: str
    pid: int
    started: float

    def running(self) -> bool | None:
        """Whether this process is alive; None for a process of another machine, which cannot be checked."""
        if self.machine != _machine():
            return None
        return _started(self.pid) == self.started

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `identity_from` reads it."""
        return asdict(self)


def this_process() -> ProcessIdentity:
    """The identity of the calling process."""
    return ProcessIdentity(_machine(), os.getpid(), _started(os.getpid()) or 0.0)


def identity_from(content: Any) -> ProcessIdentity | None:
    """The inverse of `to_dict`; None for anything else."""
    try:
        return ProcessIdentity(str(content["machine"]), int(content["pid"]), float(content["started"]))
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


@cache
def _machine() -> str:
    parts = [platform.node()]
    with suppress(OSError):  # not on Linux
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


def _started(pid: int) -> float | None:
    """The start time; None for a process that has ended, even if its parent has not collected it yet."""
    if Path("/proc/self/stat").exists():  # ticks since boot; psutil's time changes when the clock is set
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
