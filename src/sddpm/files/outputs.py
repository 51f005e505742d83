"""Checks of a command's outputs before its work begins."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryFile

from sddpm.errors import UserError
from sddpm.files.atomic import check_replaceable
from sddpm.files.kinds import MODEL_PARTS, RUN_PARTS, folder_kind
from sddpm.files.names import is_utf8
from sddpm.files.scratch import sweep

LONGEST_NAME = 255  # bytes, on nearly all file systems
PICTURE = (".png",)
FIGURES = (".png", ".pdf", ".svg", ".jpg", ".jpeg")  # common image formats that matplotlib writes


@dataclass(frozen=True)
class Output:
    """A file or folder that will be written.

    path: its path.
    name: its name for the user, such as an option; if empty, messages only give the path.
    suffixes: allowed file name suffixes; empty for any.
    folder: for a folder, the kinds of folders that it may replace (see `folder_kind`); None for a file; () for a folder
    in
        which single files are written.
    """

    path: Path
    name: str = ""
    suffixes: Sequence[str] = ()
    folder: tuple[str, ...] | None = None


def refuse_existing(path: Path, force: bool) -> None:
    """Raise `UserError` if `path` already exists and `force` is not set."""
    if path.exists() and not force:
        raise UserError(f"{path} already exists; choose another name or pass `force=True` to replace it")


def check_outputs(outputs: Iterable[Output], *, inputs: Iterable[str | os.PathLike[str]] = (), force: bool) -> None:
    """Check that all outputs can be written without data loss; remove files that killed processes left there.

    Args:
        outputs: the outputs to write.
        inputs: the inputs, which must not change: files, folders, or other names, which are ignored.
        force: whether existing outputs may be replaced.

    Raises:
        UserError: a name with a wrong suffix, too long or not UTF-8; two outputs at the same path; a path that cannot
            be written to; existing content that must not be replaced; an output that is, contains, or is a part of an
            input.
    """
    outputs, inputs = list(outputs), list(inputs)
    for output in outputs:
        _check_name(output)
        _check_place(output.path)
        for given in inputs:
            _check_input(output, given)
        _check_existing(output, force)
    for one, other in combinations(outputs, 2):
        if _real(one.path) == _real(other.path):
            names = " and ".join(filter(None, (one.name, other.name)))
            raise UserError(f"{names or 'two outputs'} need different names, not both {one.path}")
    for output in outputs:
        sweep(output.path.absolute().parent)
        if output.folder == ():
            sweep(output.path)


def check_utf8(path: Path) -> None:
    """Raise `UserError` for an output whose path is not UTF-8, which writers of weights and figures do not take."""
    if not is_utf8(str(path)):
        raise UserError(f"the name {str(path)!r} is not UTF-8: choose another one")


def _check_name(output: Output) -> None:
    path, label = output.path, f"{output.name} {output.path}".strip()
    if output.folder is None and path.name in ("", ".."):
        raise UserError(f"{label} is a folder: a file name is needed")
    check_utf8(path)
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        raise UserError(f"the name {path.name[:40]}... is longer than {LONGEST_NAME} bytes: choose a shorter one")
    if output.suffixes and path.suffix.lower() not in output.suffixes:
        raise UserError(f"{label}: a file name that ends in {' or '.join(output.suffixes)} is needed")


def _check_place(path: Path) -> None:
    """Check whether a file can be made at `path`, before hours of work."""
    try:
        parent = next((folder for folder in path.absolute().parents if folder.exists()), path)  # "/" has no parents
        usable = parent.is_dir()
        if usable:
            with TemporaryFile(dir=parent):
                pass
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    if not usable:
        raise UserError(f"cannot write {path}: {parent} is not a folder")


def _check_existing(output: Output, force: bool) -> None:
    path = output.path
    if output.folder == ():
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file: a folder is needed")
        if path.is_dir() and any(path.iterdir()):
            refuse_existing(path, force)
        return
    if path.is_dir() and output.folder is None:
        raise UserError(f"{path} is a folder: a file name is needed")
    if path.name in ("", ".."):
        raise UserError(f"cannot write {path}: a file or folder name is needed")
    check_replaceable(path, output.folder or ())
    refuse_existing(path, force)


def _check_input(output: Output, given: str | os.PathLike[str]) -> None:
    source = Path(given)
    try:
        if not source.exists():
            return
    except (OSError, ValueError):
        return
    path, kept = _real(output.path), _real(source)
    label = f"{output.name} {output.path}".strip()
    if path == kept:
        raise UserError(f"{label} is also an input: choose another name")
    if path in kept.parents and output.folder != ():
        raise UserError(f"{label} contains {given}, which is an input: choose another name")
    if kept in path.parents and path.exists() and source.is_dir():
        parts = {"run": RUN_PARTS, "model": MODEL_PARTS}.get(folder_kind(kept) or "")
        if parts is None or path.relative_to(kept).parts[0] in parts:
            raise UserError(f"{label} is a part of {given}, which is an input: choose another name")


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
