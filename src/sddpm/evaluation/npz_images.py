"""Images in an .npz, read from the file a few at a time, so that memory does not grow with their number."""

import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from sddpm.data.dataset import ImageDataset, Indices
from sddpm.data.decode import reason
from sddpm.errors import UserError
from sddpm.opening.arrays import open_npz, read_header

_AT_A_TIME = 1 << 23  # bytes


class NpzImages(ImageDataset):
    """Images from an .npz as written by `sddpm sample` and ADM: arr_0 (or its only array), [N, H, W, C]
    or [N, H, W], uint8, or float in [0, 1], which is rounded to 8 bits as in a PNG.

    The file is read once completely, so that errors in it are found at the start. A compressed file
    (np.savez_compressed) is decompressed again when an earlier image is read.

    Raises:
        UserError: a damaged file, an array that is not images, NaN, or values out of range.
    """

    def __init__(self, path: Path):
        try:
            with open_npz(path, ".npz of images") as archive:
                member = _member_with_images(path, archive)
                with archive.open(member) as stream:
                    found = read_header(stream, member.file_size, f"{path} is not an .npz of images: it")
                    shape, dtype = found.shape, found.dtype
                    check_form(path, shape, found.by_columns, dtype)
                    super().__init__(path.stem, [f"{path.stem}/{i:05d}" for i in range(shape[0])], None, [])
                    self.image_size, self.channels = shape[1], shape[3] if len(shape) == 4 else 1
                    self.path, self._dtype = path, dtype
                    header = stream.tell()
                    self._check_values(stream)
            self._stream, self._start = _random_access(path, member, header)
        except UserError:
            raise
        except (OSError, ValueError, EOFError, KeyError, struct.error, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{path} is not an .npz of images, or is truncated: {reason(error)}") from error

    def gather(self, indices: Indices) -> Tensor:
        wanted, inverse = np.unique(np.asarray(indices, np.int64), return_inverse=True)
        runs = np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1)
        rows = np.concatenate([self._seek_and_read(run) for run in runs])[inverse]
        pixels = rows if self._dtype == np.uint8 else np.round(rows.astype(np.float64) * 255).astype(np.uint8)
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))

    def _seek_and_read(self, run: np.ndarray) -> np.ndarray:
        if len(run) > 0:
            self._stream.seek(self._start + int(run[0]) * self._image_bytes)
        return self._read(self._stream, len(run))

    @property
    def _image_bytes(self) -> int:
        return self.image_size**2 * self.channels * self._dtype.itemsize

    def _read(self, stream: IO[bytes], count: int) -> np.ndarray:
        """The next `count` images, [count, H, W, C]."""
        content = stream.read(count * self._image_bytes)
        if len(content) != count * self._image_bytes:
            raise UserError(f"{self.path} is truncated: its header promises {len(self):,} images, but there are fewer")
        return np.frombuffer(content, self._dtype).reshape(count, self.image_size, self.image_size, self.channels)

    def _check_values(self, stream: IO[bytes]) -> None:
        """Read to the end, where zipfile compares checksums, and check float values."""
        step = max(1, _AT_A_TIME // self._image_bytes)
        bad, low, high = 0, np.inf, -np.inf
        for start in range(0, len(self), step):
            rows = self._read(stream, min(step, len(self) - start))
            if self._dtype.kind == "f":
                finite = np.isfinite(rows).all((1, 2, 3))
                bad += int((~finite).sum())
                low = np.min(rows[finite], initial=low)
                high = np.max(rows[finite], initial=high)
        stream.read(1)
        if bad:
            raise UserError(f"{self.path}: {bad:,} of {len(self):,} images hold NaN or infinity")
        if low < 0 or high > 1:
            raise UserError(f"{self.path}: float images must lie in [0, 1], these in [{low:.4g}, {high:.4g}]")


def _member_with_images(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    names = [name.removesuffix(".npy") for name in archive.namelist()]
    if "arr_0" not in names and len(names) != 1:
        raise UserError(f"{path} must have an array arr_0 with images, it has {', '.join(names) or 'nothing'}")
    return archive.infolist()[names.index("arr_0") if "arr_0" in names else 0]


def check_form(path: Path, shape: tuple[int, ...], by_columns: bool, dtype: np.dtype) -> None:
    """Raise `UserError` if an array of this form is not images."""
    if dtype.hasobject:
        raise UserError(f"{path} is not an .npz of images: it contains Python objects")
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)) or 0 in shape:
        raise UserError(f"{path}: images must be [N, H, W] or [N, H, W, 1 or 3], not {list(shape)}")
    if shape[1] != shape[2]:
        raise UserError(f"{path}: images must be square, not {shape[2]}x{shape[1]}")
    if dtype != np.uint8 and dtype.kind != "f":
        raise UserError(f"{path}: images must be uint8, or float in [0, 1], not {dtype}")
    if by_columns:
        raise UserError(f"{path} has its images in Fortran order: save np.ascontiguousarray(images) instead")


def _random_access(path: Path, member: zipfile.ZipInfo, header: int) -> tuple[IO[bytes], int]:
    """A seekable stream, and the position of the first image in it."""
    if member.compress_type != zipfile.ZIP_STORED:
        return zipfile.ZipFile(path).open(member), header
    file = path.open("rb")  # opened directly, because zipfile reads everything before the position
    file.seek(member.header_offset + 26)
    name_and_extra = struct.unpack("<HH", file.read(4))
    return file, member.header_offset + 30 + sum(name_and_extra) + header
