"""Makers of small image files, zips and idx files, written with Pillow, zipfile and struct only."""

import gzip
import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def encode() -> Callable[..., bytes]:
    """encode(array or Pillow image, format="PNG", **options) -> the file's bytes."""

    def make(image, format: str = "PNG", **options) -> bytes:
        buffer = io.BytesIO()
        (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, format, **options)
        return buffer.getvalue()

    return make


@pytest.fixture
def make_zip() -> Callable[..., Path]:
    """make_zip(path, {name: bytes}) -> path."""

    def make(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return path

    return make


@pytest.fixture
def make_folder() -> Callable[..., Path]:
    """make_folder(path, {name: bytes}) -> path."""

    def make(path: Path, files: dict[str, bytes]) -> Path:
        path.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
        return path

    return make


@pytest.fixture
def pictures() -> np.ndarray:
    """Ten colour pictures of noise, uint8 [10, 8, 8, 3]."""
    return np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), np.uint8)


@pytest.fixture
def write_idx() -> Callable[..., Path]:
    """write_idx(path, array): an idx file as described at yann.lecun.com/exdb/mnist, gzipped if named .gz."""

    def write(path: Path, array: np.ndarray) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        data = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
        return path

    return write
