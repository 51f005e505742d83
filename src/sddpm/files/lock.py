"""Locks on folders, so that only one process writes to a folder at a time."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sddpm.errors import UserError
from sddpm.files.processes import identity_from, this_process

LOCK = ".lock"
HEARTBEAT, SILENCE = 15.0, 120.0  # seconds: how often a lock is touched; after what silence it counts as abandoned


def check_unlocked(folder: Path) -> None:
    """Raise `UserError` if another process is, or may be, writing to `folder`."""
    if (holder := _holder(folder / LOCK)) is not None:
        raise UserError(_refusal(folder, holder))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`. The folder is made if needed, and removed if nothing was written to it.

    A lock belongs to the process named in it; the lock of a process that has ended is taken over. Processes of another
    machine (or container) are only known to be alive because they touch their lock every few seconds.

    Raises:
        UserError: another process holds the lock, or the lock cannot be written.
    """
    lock = folder / LOCK
    try:
        made = _make_folders(folder)
        _acquire(folder, lock)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}") from error
    over = threading.Event()
    threading.Thread(target=_touch_until, args=(over, lock), daemon=True).start()
    try:
        yield
    finally:
        over.set()
        with suppress(OSError):
            lock.unlink()
        with suppress(OSError):  # a non-empty folder stays
            for path in made:
                path.rmdir()


def _acquire(folder: Path, lock: Path) -> None:
    own = folder / f"{LOCK}.{os.getpid()}.{threading.get_ident()}"
    own.write_text(json.dumps(this_process().to_dict()), encoding="utf-8")
    try:
        for _ in range(10):
            with suppress(FileExistsError):
                os.link(own, lock)  # atomic, and never replaces another lock
                return
            before = _read(lock)
            if (holder := _holder(lock)) is not None:
                raise UserError(_refusal(folder, holder))
            aside = own.with_name(f"{own.name}.stale")
            with suppress(FileNotFoundError):
                os.replace(lock, aside)
                if _read(aside) != before:  # another process took it over in the meantime: restore it
                    with suppress(FileExistsError):
                        os.link(aside, lock)
                aside.unlink()
    finally:
        own.unlink(missing_ok=True)
    raise UserError(f"cannot lock {folder}: several processes try at the same time; try again")


def _refusal(folder: Path, holder: dict[str, Any]) -> str:
    machine = str(holder.get("machine", "")).split(" ")[0]
    return (
        f"{folder} is being written to by process {holder.get('pid', 'unknown')} on {machine or 'an unknown machine'}: "
        f"wait for it or stop it, or delete {folder / LOCK} if that process has ended"
    )


def _holder(lock: Path) -> dict[str, Any] | None:
    """The holder of a lock; None if no process holds it any more."""
    content = _read(lock)
    if content is None:
        return None
    owner = identity_from(content)
    running = None if owner is None else owner.running()
    if running is None:
        return None if _silent(lock) else content
    return content if running else None


def _read(lock: Path) -> dict[str, Any] | None:
    """The content of a lock, {} if it is damaged; None if there is none."""
    try:
        with lock.open(encoding="utf-8") as file:
            content = json.loads(file.read(10_000))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _silent(lock: Path) -> bool:
    try:
        return time.time() - lock.stat().st_mtime > SILENCE
    except OSError:
        return True


def _touch_until(over: threading.Event, lock: Path) -> None:
    while not over.wait(HEARTBEAT):
        with suppress(OSError):
            os.utime(lock)


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder with its parents; returns the new ones, the innermost first."""
    absent = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return absent
