"""A stream of bytes cut into files of a given size, with a manifest to check and join them.

OUT/  manifest.json  part-001  part-002  ...        the stream is: cat part-*
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sddpm.errors import UserError
from sddpm.hashes import sha256_of
from sddpm.opening.json_files import read_json

MANIFEST = "manifest.json"
MOST_PARTS = 999  # the names of more would not be in the order of the stream
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_size(text: str) -> int:
    """Bytes of "60MB", "16MiB" or "1.5 GB". Raises `UserError`."""
    number = text.strip().rstrip("KMGiBkmgb ")
    try:
        size = int(float(number) * UNITS[text.strip()[len(number) :].strip().upper()])
    except (ValueError, KeyError, OverflowError) as error:
        raise UserError(f"not a size: {text!r}; write a number of bytes, or 60MB, 16MiB, 1.5GB") from error
    if size < 1:
        raise UserError(f"a part must hold at least one byte, not {text!r}")
    return size


def check_part_size(limit: int, size: int) -> None:
    """Raise `UserError` if a stream of `size` bytes would be more than 999 parts of at most `limit` bytes."""
    if limit < 1 or size > limit * MOST_PARTS:
        raise UserError(
            f"`max_part` must be at least {-(-size // MOST_PARTS):,} bytes, not {limit:,}: there can be {MOST_PARTS} "
            "parts"
        )


class PartWriter:
    """A writable stream. Data go to part-001, part-002, ... of at most `limit` bytes each."""

    def __init__(self, folder: Path, limit: int | None):
        self.folder, self.limit = folder, limit
        self.parts: list[dict[str, Any]] = []
        self._file = self._hash = None
        self._room = 0

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            if self._file is None or self._room == 0:
                self._next()
            assert self._file is not None and self._hash is not None
            piece = view[: self._room]
            self._file.write(piece)
            self._hash.update(piece)
            self._room -= len(piece)
            self.parts[-1]["bytes"] += len(piece)
            view = view[len(piece) :]
        return len(data)

    def finish(self, description: Mapping[str, Any]) -> None:
        """Write the manifest: `description`, and the parts with their hashes."""
        self._close()
        text = json.dumps({**description, "parts": self.parts}, indent=1)
        (self.folder / MANIFEST).write_text(text, encoding="utf-8")

    def _next(self) -> None:
        self._close()
        name = f"part-{len(self.parts) + 1:03d}"
        self.parts.append({"name": name, "bytes": 0})
        self._file, self._hash = (self.folder / name).open("wb"), hashlib.sha256()
        self._room = self.limit or 2**63

    def _close(self) -> None:
        if self._file is not None and self._hash is not None:
            self._file.close()
            self.parts[-1]["sha256"] = self._hash.hexdigest()
            self._file = self._hash = None


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder, after checking that all its parts exist and are intact.

    Raises:
        UserError: there is no manifest, or parts, which are named, are missing or damaged.
    """
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder} has no {MANIFEST}: give the folder that `sddpm pack` wrote")
    try:
        manifest = read_json(folder / MANIFEST)
        parts = [(_text(part["name"]), _text(part["sha256"]), _count(part["bytes"])) for part in manifest["parts"]]
    except (UserError, KeyError, TypeError) as error:
        raise UserError(f"{folder / MANIFEST} is damaged: copy it again ({error})") from error
    if any(Path(name).name != name or name in ("", "..") for name, *_ in parts):
        raise UserError(f"{folder / MANIFEST} names parts outside its folder")
    missing = [name for name, *_ in parts if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{', '.join(missing)} of {len(parts)} parts missing in {folder}: copy them there")
    damaged = [
        name
        for name, value, size in parts
        if (folder / name).stat().st_size != size or sha256_of(folder / name) != value
    ]
    if damaged:
        raise UserError(f"{', '.join(damaged)} in {folder} damaged: copy them again")
    return manifest


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"{value!r} is not a number of bytes")
    return value


class PartReader:
    """A readable stream of the parts of a manifest, in order."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any]):
        self._waiting = [folder / part["name"] for part in manifest["parts"]]
        self._file = None

    def read(self, size: int) -> bytes:
        while self._file is not None or self._waiting:
            if self._file is None:
                self._file = self._waiting.pop(0).open("rb")
            if data := self._file.read(size):
                return data
            self._file.close()
            self._file = None
        return b""
