"""Writing files and folders whole or not at all: beside the place where they belong, then moved there."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from sddpm.errors import UserError
from sddpm.files.kinds import folder_kind, foreign_entries
from sddpm.files.scratch import BEFORE, close_scratch, open_scratch


@contextmanager
def atomic_path(path: Path, *, owned: bool = False) -> Iterator[Path]:
    """A temporary path beside `path`, moved there when the block ends well, removed when it does not.

    The block may make a file or a folder of it; what was at `path` before stays until the move, and comes back if that
    fails or is interrupted. A file replaces files only, a folder only folders of its kind (see `folder_kind`).

    Args:
        path: of the file or folder.
        owned: whether the caller knows that any folder at `path` is its own, such as one inside a run folder, and may
            be replaced even if it is damaged.

    Raises:
        UserError: a full disk, a missing permission, or something at `path` that must not be replaced.
    """
    path = Path(path)
    if path.name in ("", ".."):
        raise UserError(f"cannot write {path}: it has no name of its own")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = open_scratch(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    try:
        # The suffix stays, because some writers choose their format by it.
        temporary = scratch / "new" / path.name
        yield temporary
        _replace(temporary, path, scratch / BEFORE, owned)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk in an exception of its own
        raise UserError(f"cannot write {path}: {_reason(error)}; nothing was changed there") from error
    finally:
        close_scratch(scratch)


def _reason(error: Exception) -> str:
    """What the system says; NumPy has words and no number for what did not fit: "12800 requested and 12256 written"."""
    short = isinstance(error, OSError) and error.errno is None and " requested and " in str(error)
    return os.strerror(errno.ENOSPC) if short else getattr(error, "strerror", None) or str(error)


def _replace(temporary: Path, path: Path, before: Path, owned: bool) -> None:
    """Move `temporary` to `path`. If that is interrupted half-way, closing the scratch folder puts `before` back."""
    check_replaceable(path, () if not temporary.is_dir() else None if owned else (folder_kind(temporary),))
    if path.is_dir():
        os.replace(path, before)  # os.replace does not replace a folder that has files in it
    os.replace(temporary, path)


def check_replaceable(path: Path, kinds: tuple[str | None, ...] | None) -> None:
    """Raise `UserError` if what is at `path` may not be replaced.

    Args:
        path: of something, or of nothing.
        kinds: of folders that may be replaced, as of `folder_kind`: () if it is a file that will be written; None if
            any folder may be.
    """
    if path.is_dir():
        if kinds == ():
            raise UserError(f"{path} is a folder and is not replaced by a file: choose another name")
        if path.is_symlink():
            raise UserError(f"{path} is a link to a folder and is not replaced: name the folder itself")
        if kinds is not None:
            _check_kind(path, kinds)
    elif path.exists() and kinds != ():
        raise UserError(f"{path} is a file and is not replaced by a folder: choose another name")
    elif path.exists() and not path.is_file():
        raise UserError(f"{path} is a device or a pipe, not a file: choose another name")


def _check_kind(path: Path, kinds: tuple[str | None, ...]) -> None:
    found = folder_kind(path)
    if found == "empty":
        return
    if found is None or found not in kinds:
        what = f"holds a {found}" if found else "was not written by sddpm"
        raise UserError(f"{path} {what} and is not replaced: choose another name, or move it away")
    if foreign := foreign_entries(path, found):
        raise UserError(f"{path} holds {', '.join(foreign[:3])} besides a {found} and is not replaced: move that away")
