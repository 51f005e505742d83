"""NumPy's .npy and .npz: headers are compared with the file's size before an array is allocated."""

import os
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from sddpm.errors import UserError, reason
from sddpm.opening.files import KIB, MIB, check_file, check_memory

MOST_ARRAYS = 1000
_UNPACKED = 1032  # times the packed size at most: the limit of deflate


@dataclass(frozen=True)
class ArrayHeader:
    """The header of an .npy. by_columns: whether in Fortran order; size: bytes of the header."""

    shape: tuple[int, ...]
    by_columns: bool
    dtype: np.dtype
    size: int

    @property
    def bytes(self) -> int:
        """The size of the array in bytes."""
        return prod(self.shape) * self.dtype.itemsize


def read_header(stream: IO[bytes], length: int, source: str) -> ArrayHeader:
    """Read the header of an .npy of `length` bytes; the stream is then at the array.

    Raises:
        UserError: not an .npy, an array of Python objects, or a header that does not match the file's size.
    """
    start = stream.tell()
    try:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version[0] == 1 else npy.read_array_header_2_0
        shape, by_columns, dtype = read(stream)
    except (zipfile.BadZipFile, zlib.error):  # an error of the zip file, which the caller reports
        raise
    except Exception as error:  # numpy parses Python literals here, and can raise many kinds of errors
        raise UserError(f"{source} is not a NumPy array, or is damaged: {reason(error)}") from error
    if dtype.hasobject:
        raise UserError(f"{source} holds Python objects, which are not read: save numbers")
    if any(side < 0 for side in shape):
        raise UserError(f"{source} is damaged: it claims the shape {list(shape)}")
    header = ArrayHeader(shape, by_columns, dtype, stream.tell() - start)
    if header.bytes > (held := length - header.size):
        raise UserError(
            f"{source} is truncated or damaged: its header says {list(shape)} {dtype}, {header.bytes:,} bytes, but it "
            "holds"
            f" {held:,}"
        )
    return header


def open_npz(path: str | os.PathLike[str], what: str) -> zipfile.ZipFile:
    """Open an .npz. Raises `UserError` for an incomplete zip, or one that is encrypted or has an unusual
    compression."""
    found = check_file(path, what)
    try:
        archive = zipfile.ZipFile(found)
    except Exception as error:  # BadZipFile, and errors of its parts
        raise UserError(f"{path} is not an {what}, or is truncated: {reason(error)}") from error
    for member in archive.infolist():
        if member.flag_bits & 1:
            raise UserError(f"{path} is not an {what}: {member.filename} is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UserError(f"{path} is not an {what}: {member.filename} has a compression that NumPy does not write")
        if member.file_size > _UNPACKED * member.compress_size + 64 * KIB:
            raise UserError(f"{path} is damaged: {member.filename} claims {member.file_size:,} bytes")
    if len(archive.infolist()) > MOST_ARRAYS:
        raise UserError(f"{path} is not an {what}: it holds {len(archive.infolist()):,} arrays")
    return archive


def read_npz(path: str | os.PathLike[str], what: str, wanted: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an .npz by name, with checksums verified.

    Args:
        path: path of the file.
        what: the expected kind of file, for error messages.
        wanted: names to read, if they exist; None for all.

    Raises:
        UserError: as in `open_npz` and `read_header`; a wrong checksum; arrays that do not fit into memory.
    """
    found: dict[str, np.ndarray] = {}
    with open_npz(path, what) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if wanted is None or name in set(wanted):
                found[name] = _read_member(path, what, archive, member)
    return found


def npz_names(path: str | os.PathLike[str], what: str) -> list[str]:
    """The names of the arrays in an .npz. Raises `UserError` as `open_npz`."""
    with open_npz(path, what) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def read_npy(path: str | os.PathLike[str], what: str) -> np.ndarray:
    """The array of an .npy. Raises `UserError` as `read_header`, or if it does not fit into memory."""
    found = check_file(path, what)
    try:
        with found.open("rb") as stream:
            header = read_header(stream, found.stat().st_size, f"{path}")
            return _read_array(stream, header, str(path))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def is_npy(path: Path) -> bool:
    """Whether a file begins like an .npy."""
    try:
        with path.open("rb") as file:
            return file.read(len(npy.MAGIC_PREFIX)) == npy.MAGIC_PREFIX
    except OSError:
        return False


def _read_member(path: Any, what: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    try:
        with archive.open(member) as stream:
            source = f"{path} is not an {what}: {member.filename}"
            header = read_header(stream, member.file_size, source)
            array = _read_array(stream, header, source)
            stream.read(1)  # reads to the end, where the checksum is compared
            return array
    except UserError:
        raise
    except Exception as error:  # zlib.error, BadZipFile, EOFError, ...
        raise UserError(f"{path} is not an {what}, or is truncated: {reason(error)}") from error


def _read_array(stream: IO[bytes], header: ArrayHeader, source: str) -> np.ndarray:
    check_memory(header.bytes, source)
    content, done = np.empty(header.bytes, np.uint8), 0
    while done < header.bytes:
        piece = stream.read(min(header.bytes - done, 16 * MIB))
        if not piece:
            raise UserError(f"{source} is truncated: it has {done:,} of {header.bytes:,} bytes")
        content[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
        done += len(piece)
    flat = content.view(header.dtype) if header.bytes else np.empty(0, header.dtype)
    return flat.reshape(header.shape, order="F" if header.by_columns else "C")
