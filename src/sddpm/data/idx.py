"""The idx format of MNIST and Fashion-MNIST, plain or gzipped (layout: yann.lecun.com/exdb/mnist)."""

import gzip
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from sddpm.errors import UserError

_UBYTE = 0x08
_DEFLATE_MAX_RATIO = 1032  # the limit of deflate: a larger claimed size means a damaged header


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """Reads one idx file of unsigned bytes with `ndim` dimensions (3: images [N, H, W], 1: labels [N]).

    Raises `UserError` for a file that is not such an idx file, is truncated, or has surplus bytes.
    """
    try:
        packed = path.suffix == ".gz"
        with cast(BinaryIO, gzip.open(path) if packed else path.open("rb")) as file:
            header = file.read(4 + 4 * ndim)
            if header[:4] != bytes([0, 0, _UBYTE, ndim]) or len(header) < 4 + 4 * ndim:
                raise UserError(f"{path} is not an idx file of {ndim}-dimensional unsigned bytes")
            shape = tuple(int(n) for n in np.frombuffer(header, ">u4", ndim, 4))
            size = 1
            for n in shape:
                size *= n
            if size > path.stat().st_size * (_DEFLATE_MAX_RATIO if packed else 1):
                raise UserError(f"{path} is truncated or damaged: its header promises {size} bytes of data")
            data = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if len(data) != size:
        found = "more" if len(data) > size else f"only {len(data)}"
        raise UserError(f"{path} is truncated or damaged: its header promises {size} bytes of data, it has {found}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def find_idx(folder: Path, stem: str) -> Path | None:
    """The file `stem`-ubyte or `stem`.gz in a folder, e.g. stem "train-images-idx3-ubyte"; None if absent."""
    return next((path for path in (folder / f"{stem}.gz", folder / stem) if path.is_file()), None)


def read_idx_folder(folder: Path, prefix: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Images uint8 [N, H, W] and labels int64 [N] (None without a label file) of one split.

    `prefix` is "train" or "t10k", as in the official file names.
    """
    image_path = find_idx(folder, f"{prefix}-images-idx3-ubyte")
    if image_path is None:
        raise UserError(f"{folder} has no {prefix}-images-idx3-ubyte.gz")
    images = read_idx(image_path, 3)
    if images.size == 0:
        raise UserError(f"{image_path} has no images")
    label_path = find_idx(folder, f"{prefix}-labels-idx1-ubyte")
    if label_path is None:
        return images, None
    labels = read_idx(label_path, 1).astype(np.int64)
    if len(labels) != len(images):
        raise UserError(f"{label_path} has {len(labels)} labels for {len(images)} images")
    return images, labels
