"""Atomic writing of files and folders: they are written next to their final path, then moved there."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from sddpm.errors import UserError
from sddpm.files.kinds import folder_kind, foreign_entries
from sddpm.files.scratch import BEFORE, close_scratch, make_scratch, scratch_path


@contextmanager
def atomic_path(path: Path, *, owned: bool = False) -> Iterator[Path]:
    """A temporary path next to `path`, moved to `path` if the block succeeds, removed if it fails.

    The block can make a file or a folder there. The old content of `path` stays until the move, and is restored if the
    move fails or is interrupted. A file only replaces a file, a folder only a folder of its kind (see `folder_kind`).

    Args:
        path: path of the file or folder.
        owned: whether the caller knows that a folder at `path` is its own, such as one inside a run folder, so that it
            can be replaced even if it is damaged.

    Raises:
        UserError: a full disk, a missing permission, or something at `path` that must not be replaced.
    """
    path = Path(path)
    if path.name in ("", ".."):
        raise UserError(f"cannot write {path}: a file or folder name is needed")
    scratch = scratch_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        make_scratch(scratch, path.name)
        # The suffix stays, because some writers choose their format by it.
        temporary = scratch / "new" / path.name
        yield temporary
        _open_to_readers(temporary)
        _replace(temporary, path, scratch / BEFORE, owned)
    except (OSError, SafetensorError) as error:  # safetensors has its own exception for a full disk
        raise UserError(f"cannot write {path}: {_reason(error)}; nothing was changed there") from error
    finally:
        close_scratch(scratch)


def _reason(error: Exception) -> str:
    """The system's message. NumPy has no error number for a full disk, only a text: "12800 requested and 12256
    written"."""
    short = isinstance(error, OSError) and error.errno is None and " requested and " in str(error)
    return os.strerror(errno.ENOSPC) if short else getattr(error, "strerror", None) or str(error)


def _open_to_readers(made: Path) -> None:
    """Let those read the files who may by the process's umask; safetensors writes them for their owner alone."""
    readable = made.parent.stat().st_mode & 0o444  # of a folder that was made by the umask
    for file in [made, *made.rglob("*")] if made.is_dir() else [made]:
        if file.is_file() and not file.is_symlink():
            file.chmod(file.stat().st_mode | readable)


def _replace(temporary: Path, path: Path, before: Path, owned: bool) -> None:
    """Move `temporary` to `path`. If this is interrupted, closing the scratch folder restores `before`."""
    check_replaceable(path, () if not temporary.is_dir() else None if owned else (folder_kind(temporary),))
    if path.is_dir():
        os.replace(path, before)  # os.replace does not replace a non-empty folder
    os.replace(temporary, path)


def check_replaceable(path: Path, kinds: tuple[str | None, ...] | None) -> None:
    """Raise `UserError` if the content of `path` must not be replaced.

    Args:
        path: a path that may or may not exist.
        kinds: the kinds of folders that may be replaced, as in `folder_kind`; () if a file will be written; None if any
            folder may be replaced.
    """
    if path.is_dir():
        if kinds == ():
            raise UserError(f"{path} is a folder and cannot be replaced by a file: choose another name")
        if path.is_symlink():
            raise UserError(f"{path} is a link to a folder and cannot be replaced: give the folder itself")
        if kinds is not None:
            _check_kind(path, kinds)
    elif path.exists() and kinds != ():
        raise UserError(f"{path} is a file and cannot be replaced by a folder: choose another name")
    elif path.exists() and not path.is_file():
        raise UserError(f"{path} is a device or a pipe, not a file: choose another name")


def _check_kind(path: Path, kinds: tuple[str | None, ...]) -> None:
    found = folder_kind(path)
    if found == "empty":
        return
    if found is None or found not in kinds:
        what = f"holds a {found}" if found else "was not written by sddpm"
        raise UserError(f"{path} {what} and will not be replaced: choose another name, or move it away")
    if foreign := foreign_entries(path, found):
        raise UserError(
            f"{path} holds {', '.join(foreign[:3])} besides a {found} and will not be replaced: move these files away"
        )
