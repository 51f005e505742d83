"""General checks of files: that a file exists, is readable, and is not larger than files of its kind can be."""

import os
import stat
from pathlib import Path

import psutil

from sddpm.errors import UserError

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path with ~ and ~NAME replaced by home folders. Raises `UserError` for an unknown user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: there is no such user") from error


def check_file(path: str | os.PathLike[str], what: str = "file") -> Path:
    """The path of a readable regular file.

    Args:
        path: path of the file.
        what: the expected kind of file, for error messages.

    Raises:
        UserError: no such file, a folder, a pipe or device (which might never end), or no permission.
    """
    found = user_path(path)
    try:
        mode = found.stat().st_mode
    except FileNotFoundError:
        raise UserError(f"cannot read {path}: there is no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a null in the name
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISDIR(mode):
        raise UserError(f"{path} is a folder, not a {what}")
    if not stat.S_ISREG(mode):
        raise UserError(f"{path} is a pipe or a device, not a {what}")
    if not os.access(found, os.R_OK):
        raise UserError(f"cannot read {path}: Permission denied")
    return found


def read_bytes(path: str | os.PathLike[str], most: int, what: str = "file") -> bytes:
    """The content of a file of at most `most` bytes. Raises `UserError` as `check_file` does, and for a larger file."""
    found = check_file(path, what)
    try:
        with found.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > most:
        raise UserError(f"{path} is larger than the {most // KIB:,} KiB that a {what} of this kind may have")
    return content


def read_text(path: str | os.PathLike[str], most: int, what: str = "file") -> str:
    """A UTF-8 text of at most `most` bytes. Raises `UserError` as `read_bytes` does, and for a file that is not
    text."""
    try:
        return read_bytes(path, most, what).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"cannot read {path}: it is not UTF-8 text (byte {error.start}), which a {what} must be"
        ) from error


def check_memory(size: int, what: str) -> None:
    """Raise `UserError` if `what` needs more memory than this machine has free."""
    free = psutil.virtual_memory().available
    if size > free:
        raise UserError(f"{what} needs {size / GIB:,.1f} GiB of memory, but only {free / GIB:.1f} GiB are free")
