"""Lists the files of a folder so that none is missed in silence."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from sddpm.errors import UserError


def walk(top: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Each folder with the names of its folders and files, from `top` down, as `os.walk`.

    Links to folders are followed, unless they lead back to a folder in which they lie. Hidden folders are left out.

    Raises:
        UserError: a folder that cannot be read.
    """
    for name, folders, files in os.walk(top, onerror=_refuse, followlinks=True):
        place = Path(name)
        yield place, folders, files
        folders[:] = [each for each in folders if not each.startswith(".") and not _leads_back(place / each, top)]


def _refuse(error: OSError) -> NoReturn:
    raise UserError(f"cannot read {error.filename}: {error.strerror}") from error


def _leads_back(folder: Path, top: Path) -> bool:
    if not folder.is_symlink():
        return False
    inside = [parent for parent in folder.parents if parent.is_relative_to(top)]
    return any(folder.samefile(parent) for parent in (*inside, *top.resolve().parents))
