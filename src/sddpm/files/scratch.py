"""Hidden folders, .NAME.xxxxxxxx, in which files are made before they are moved to NAME.

Each names its process, so that folders left by killed processes can be distinguished from those in use.
"""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

from sddpm.files.processes import identity_from, this_process

OWNER, BEFORE = "owner.json", "before"  # the writing process; the old content of the path during replacement


def scratch_path(path: Path) -> Path:
    """The path of a new scratch folder for the content of `path`. Nothing is made yet, so that an interrupted
    `make_scratch` can be undone."""
    short = os.fsencode(path.name)[:100].decode(errors="ignore")  # the system limits names to 255 bytes
    return path.parent / f".{short}.{token_hex(8)}"


def make_scratch(scratch: Path, name: str) -> None:
    """Make a scratch folder for the content of the path with that name, and a folder new/ to write it in. Raises
    `OSError`."""
    scratch.mkdir(0o700)
    owner = json.dumps({**this_process().to_dict(), "name": name})
    (scratch / OWNER).write_text(owner, encoding="utf-8")
    (scratch / "new").mkdir()


def close_scratch(scratch: Path) -> None:
    """Remove a scratch folder. If the old content of its path had been moved away but the new content had not arrived,
    restore the old content first."""
    before, name = scratch / BEFORE, _owner(scratch).get("name")
    if os.path.lexists(before):
        if not isinstance(name, str) or Path(name).name != name:
            return
        if not os.path.lexists(path := scratch.parent / name):
            try:
                os.replace(before, path)
            except OSError:
                return  # it is the only copy, and stays here
    with suppress(OSError):
        # The owner file is removed last: a folder without one has an unknown owner and is never swept.
        for entry in sorted(scratch.iterdir(), key=lambda entry: entry.name == OWNER):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink()
        scratch.rmdir()


def sweep(folder: Path) -> None:
    """Close the scratch folders in `folder` whose processes have certainly ended."""
    try:
        with os.scandir(folder) as entries:
            hidden = [Path(entry.path) for entry in entries if entry.name.startswith(".")]
    except OSError:
        return
    for scratch in filter(is_abandoned, hidden):
        close_scratch(scratch)


def is_abandoned(scratch: Path) -> bool:
    """Whether this is a scratch folder whose process has certainly ended."""
    owner = identity_from(_owner(scratch))
    return owner is not None and owner.running() is False


def _owner(scratch: Path) -> dict[str, Any]:
    try:
        with (scratch / OWNER).open(encoding="utf-8") as file:
            content = json.loads(file.read(10_000))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
