"""A folder that one process at a time may write to."""

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
HEARTBEAT, SILENCE = 15.0, 120.0  # seconds: how often a lock is touched; for how long one of a dead machine is not


def check_unlocked(folder: Path) -> None:
    """Raise `UserError` if another process is writing to `folder`, or may be."""
    if (holder := _holder(folder / LOCK)) is not None:
        raise UserError(_refusal(folder, holder))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, which is made if need be, and removed again if nothing was written to it.

    A lock is kept by the process that is named in it; one of a process that is gone is taken over. Of a process of
    another machine (or container) nothing is known here but that it touches its lock every few seconds.

    Raises:
        UserError: another process holds it, or it cannot be written.
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
        with suppress(OSError):  # one that holds something stays
            for path in made:
                path.rmdir()


def _acquire(folder: Path, lock: Path) -> None:
    own = folder / f"{LOCK}.{os.getpid()}.{threading.get_ident()}"
    own.write_text(json.dumps(this_process().to_dict()), encoding="utf-8")
    try:
        for _ in range(10):
            with suppress(FileExistsError):
                os.link(own, lock)  # whole at once, and never over another
                return
            before = _read(lock)
            if (holder := _holder(lock)) is not None:
                raise UserError(_refusal(folder, holder))
            aside = own.with_name(f"{own.name}.stale")
            with suppress(FileNotFoundError):
                os.replace(lock, aside)
                if _read(aside) != before:  # another process took it over in the meantime: give it back
                    with suppress(FileExistsError):
                        os.link(aside, lock)
                aside.unlink()
    finally:
        own.unlink(missing_ok=True)
    raise UserError(f"cannot lock {folder}: several processes want it at once")


def _refusal(folder: Path, holder: dict[str, Any]) -> str:
    machine = str(holder.get("machine", "")).split(" ")[0]
    return (
        f"{folder} is being written by process {holder.get('pid', 'unknown')} on {machine or 'an unknown machine'}: "
        f"wait for it or stop it, or delete {folder / LOCK} if it is no more"
    )


def _holder(lock: Path) -> dict[str, Any] | None:
    """Who holds a lock; None if nobody does any more."""
    content = _read(lock)
    if content is None:
        return None
    owner = identity_from(content)
    running = None if owner is None else owner.running()
    if running is None:
        return None if _silent(lock) else content
    return content if running else None


def _read(lock: Path) -> dict[str, Any] | None:
    """What a lock says, {} if it is damaged; None if there is none."""
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
    """Make a folder with its parents; which of them were made, the innermost first."""
    absent = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return absent
