"""Folders, zips and LMDBs of images, one or several; labels from EDM's dataset.json or from class folders."""

import json
import logging
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from sddpm.data.classes import Labels, folder_labels, joined_labels
from sddpm.data.lmdb_folder import is_lmdb, open_lmdb
from sddpm.data.sources import MIB, Source, describe
from sddpm.errors import UserError, reason
from sddpm.opening.files import check_file
from sddpm.opening.folders import walk
from sddpm.opening.images import MOST_BYTES, decode_image

log = logging.getLogger(__name__)
EXTENSIONS = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"}
_MAX_FILE, _MAX_JSON = MOST_BYTES, 512 * MIB
_MAX_RATIO, _RATIO_FROM = 200, MIB  # image files are hardly compressible; small uniform ones may be


@dataclass
class _Part:
    """One folder, zip or LMDB: its image names in order, `read(name) -> bytes`, its dataset.json."""

    names: list[str]
    read: Callable[[str], bytes]
    skipped: list[tuple[str, str]]
    json: bytes | None


def open_images(paths: tuple[Path, ...], *, class_folders: bool = False) -> Source:
    """All images in the given folders and zips, each sorted by name, in the order of `paths`. A path can also be an
    image, or the folder of an LMDB whose values are image files.

    With several paths every name is prefixed by its folder or archive, because archives use the same numbers for
    images. There are labels if every path has them: in its dataset.json, or else, with `class_folders`, by folder;
    folders of the same name are one class in all paths. Unusable labels are left out with a warning, and
    `label_problem` gives the reason.
    Raises `UserError` for a path that is not a folder, complete zip or image, for a broken link or a folder inside that
    cannot be read, or if there is no image.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError("the same folder or zip is listed twice")
    parts = [_open_part(path) for path in paths]
    prefixes = _prefixes(paths)
    entries = [(part, name) for part in parts for name in part.names]
    skipped = [(prefix + name, why) for prefix, part in zip(prefixes, parts, strict=True) for name, why in part.skipped]
    if not entries:
        where = ", ".join(map(str, paths))
        if skipped:
            raise UserError(f"none of the {len(skipped)} images in {where} can be used: {describe(skipped)}")
        raise UserError(f"no images in {where}: looked for {' '.join(sorted(EXTENSIONS))}")
    names = [prefix + name for prefix, part in zip(prefixes, parts, strict=True) for name in part.names]

    def read(i: int) -> Image.Image:
        part, name = entries[i]
        return decode_image(part.read(name))

    labels, class_names, problem = None, None, None
    try:
        found = [_labels(part, path, class_folders) for part, path in zip(parts, paths, strict=True)]
        labels, class_names = joined_labels(found)
    except ValueError as error:  # includes UserError: only a model with classes needs labels
        problem = str(error)
        log.warning("labels are left out: %s", problem)
    return Source(names, read, labels, skipped, class_names=class_names, label_problem=problem)


def _prefixes(paths: tuple[Path, ...]) -> list[str]:
    if len(paths) == 1:
        return [""]
    short = [path.name for path in paths]
    return [f"{x}/" for x in (short if len(set(short)) == len(short) else map(str, paths))]


def _is_image(name: PurePosixPath) -> bool:
    hidden = any((part.startswith(".") and part != "..") or part == "__MACOSX" for part in name.parts)
    return not hidden and name.suffix.lower() in EXTENSIONS


def _open_part(path: Path) -> _Part:
    if path.is_file() and path.suffix.lower() in EXTENSIONS:
        return _Part([path.name], _reader(path.parent), [], None)
    if not path.is_dir():
        return _open_zip(path)
    if is_lmdb(path):
        return _Part(*open_lmdb(path), [], None)
    part = _open_folder(path)
    zips = sorted(file for file in path.iterdir() if file.suffix.lower() == ".zip")
    if part.names or not zips:
        return part
    if len(zips) > 1:
        raise UserError(f"{path} has several zips: give the ones to use, e.g. {zips[0]},{zips[1]}")
    return _open_zip(zips[0])


def _open_folder(folder: Path) -> _Part:
    paths = [place / name for place, _, inside in walk(folder) for name in inside]
    for path in paths:
        _refuse_broken_link(path)
    found = (PurePosixPath(path.relative_to(folder).as_posix()) for path in paths if path.is_file())
    names = sorted(str(name) for name in found if _is_image(name))
    info = folder / "dataset.json"
    return _Part(names, _reader(folder), [], info.read_bytes() if info.is_file() else None)


def _refuse_broken_link(path: Path) -> None:
    """Raise `UserError` for a link that may have led to a folder of images, whose class would be missing."""
    may_be_folder = path.suffix.lower() not in EXTENSIONS and not path.name.startswith(".")
    if may_be_folder and path.is_symlink() and not path.exists():
        raise UserError(f"{path} is a link to something that is not there: mend or remove it")


def _reader(folder: Path) -> Callable[[str], bytes]:
    def read(name: str) -> bytes:
        path = folder / name
        if path.stat().st_size > _MAX_FILE:
            raise ValueError(f"larger than {_MAX_FILE // MIB} MiB")
        return path.read_bytes()

    return read


def _open_zip(path: Path) -> _Part:
    check_file(path, "folder, zip or image")
    try:
        archive = zipfile.ZipFile(path)  # kept open: its reads are locked, so threads can share it
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UserError(f"{path} is not a complete zip file: truncated or damaged ({error})") from error
    entries: dict[str, zipfile.ZipInfo] = {}
    skipped: list[tuple[str, str]] = []
    for entry in sorted(archive.infolist(), key=lambda entry: entry.filename):
        if entry.is_dir() or not _is_image(PurePosixPath(entry.filename.replace("\\", "/"))):
            continue
        if why := _refusal(entry) or ("second entry of this name" if entry.filename in entries else None):
            skipped.append((entry.filename, why))
        else:
            entries[entry.filename] = entry
    info = next((entry for entry in archive.infolist() if entry.filename == "dataset.json"), None)
    if info is not None and info.file_size > _MAX_JSON:
        raise UserError(f"dataset.json in {path} claims {info.file_size:,} bytes: more than {_MAX_JSON // MIB} MiB")
    try:
        labels = None if info is None else _read_entry(archive, info)
    except Exception as error:  # zlib.error, BadZipFile, a password, an unknown compression, ...
        raise UserError(f"dataset.json in {path} cannot be read: {reason(error)}") from error
    return _Part(list(entries), lambda name: _read_entry(archive, entries[name]), skipped, labels)


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """The entry's bytes, checked by its CRC. At most the declared size is read, in case an entry expands further."""
    with archive.open(entry) as file:
        return file.read(entry.file_size)


def _refusal(entry: zipfile.ZipInfo) -> str | None:
    """Why a zip entry is refused, decided only from the zip's directory; None if it can be read."""
    name = entry.filename.replace("\\", "/")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in name.split("/"):
        return "unsafe name: absolute or with '..'"
    if entry.flag_bits & 1:
        return "encrypted"
    if entry.file_size > _MAX_FILE:
        return f"claims {entry.file_size:,} bytes: more than {_MAX_FILE // MIB} MiB"
    if entry.file_size > _RATIO_FROM and entry.file_size > _MAX_RATIO * max(entry.compress_size, 1):
        return f"expands {entry.file_size // max(entry.compress_size, 1)}-fold, like a zip bomb"
    return None


def _labels(part: _Part, path: Path, class_folders: bool) -> Labels:
    """int64 [N] from dataset.json, else from class folders if allowed, else None; and the names of the classes.

    Raises:
        UserError: a dataset.json whose labels cannot be used.
    """
    if part.json is None:
        return folder_labels(part.names) if class_folders else (None, None)
    try:
        pairs = json.loads(part.json).get("labels")
        if pairs is None:
            return None, None
        table = {name: int(label) for name, label in pairs if label == int(label)}
        return np.array([table[name.replace("\\", "/")] for name in part.names], np.int64), None
    except KeyError as error:
        raise UserError(f"dataset.json in {path} has no whole-number label for {error}") from error
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise UserError(f'dataset.json in {path} is not {{"labels": [[name, class], ...]}}: {error}') from error
