"""What a command is about to write, checked before its work begins."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryFile

from sddpm.errors import UserError
from sddpm.files.atomic import check_replaceable
from sddpm.files.kinds import MODEL_PARTS, RUN_PARTS, folder_kind
from sddpm.files.scratch import sweep

LONGEST_NAME = 255  # bytes, on nearly all file systems
FIGURES = (".png", ".pdf", ".svg", ".jpg", ".jpeg")  # what matplotlib makes of a suffix, and people look at


@dataclass(frozen=True)
class Output:
    """A file or folder that will be written.

    path: where.
    name: what the user calls it, such as an option; the path alone says enough if empty.
    suffixes: of the file names that will do; any will if there are none.
    folder: for a folder, the kinds of folders that it may replace (see `folder_kind`); None for a file; () for a folder
        in which files are written one by one.
    """

    path: Path
    name: str = ""
    suffixes: Sequence[str] = ()
    folder: tuple[str, ...] | None = None


def refuse_existing(path: Path, force: bool) -> None:
    """Raise `UserError` if something is at `path` already and `force` is not set."""
    if path.exists() and not force:
        raise UserError(f"{path} exists already; choose another name or pass `force=True` to replace it")


def check_outputs(outputs: Iterable[Output], *, inputs: Iterable[str | os.PathLike[str]] = (), force: bool) -> None:
    """Check that all outputs can be written and that nothing is lost by it; sweep what killed processes left there.

    Args:
        outputs: what will be written.
        inputs: what is read, which must stay: files, folders, or names of something else, which do not matter.
        force: whether what exists may be replaced.

    Raises:
        UserError: a name with a wrong suffix or too long; two outputs in one place; a place that cannot be written to;
            something there that is not to be replaced; an output that is an input, contains one, or is a part of one.
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


def _check_name(output: Output) -> None:
    path, label = output.path, f"{output.name} {output.path}".strip()
    if output.folder is None and path.name in ("", ".."):
        raise UserError(f"{label} is a folder: a file name is needed")
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        raise UserError(f"the name {path.name[:40]}... is longer than {LONGEST_NAME} bytes: choose a shorter one")
    if output.suffixes and path.suffix.lower() not in output.suffixes:
        raise UserError(f"{label}: a file name that ends in {' or '.join(output.suffixes)} is needed")


def _check_place(path: Path) -> None:
    """Find out now whether a file could be made at `path`, not after hours of work."""
    try:
        parent = next(folder for folder in path.absolute().parents if folder.exists())
        usable = parent.is_dir()
        if usable:
            with TemporaryFile(dir=parent):
                pass
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    if not usable:
        raise UserError(f"cannot write {path}: {parent} is no folder")


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
        raise UserError(f"cannot write {path}: it has no name of its own")
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
        raise UserError(f"{label} is what is read: choose another name")
    if path in kept.parents and output.folder != ():
        raise UserError(f"{label} contains {given}, which is read: choose another name")
    if kept in path.parents and path.exists() and source.is_dir():
        parts = {"run": RUN_PARTS, "model": MODEL_PARTS}.get(folder_kind(kept) or "")
        if parts is None or path.relative_to(kept).parts[0] in parts:
            raise UserError(f"{label} is a part of {given}, which is read: choose another name")


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
