"""Writing files and folders whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from safetensors import SafetensorError

from sddpm.errors import UserError


def refuse_existing(path: Path, force: bool) -> None:
    """Raise `UserError` if something is at `path` already and `force` is not set."""
    if path.exists() and not force:
        raise UserError(f"{path} exists already; choose another name or pass --force to replace it")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, moved there when the block ends well, removed when it does not.

    The block may make a file or a folder of it; what was at `path` before stays until the move. A full disk or a
    missing permission becomes a `UserError`.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    try:
        # The suffix stays, because some writers choose their format by it.
        temporary = scratch / path.name
        yield temporary
        _replace(temporary, path, scratch)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk in an exception of its own
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot write {path}: {reason}; nothing was changed there") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _replace(temporary: Path, path: Path, scratch: Path) -> None:
    if path.is_dir():  # os.replace does not replace a folder that has files in it
        os.replace(path, scratch / "before")
    os.replace(temporary, path)
