"""CIFAR-10 as official binary or python batches, packed or not, or as zips (layout: cs.toronto.edu/~kriz)."""

import io
import pickle
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sddpm.data.images import open_images
from sddpm.data.sources import MIB, Source, source_of_arrays
from sddpm.errors import UserError, reason

_TRAIN = [f"data_batch_{i}" for i in range(1, 6)]
_RECORD = 1 + 3 * 32 * 32  # label, then the red, green and blue planes
_MAX_BATCH = 64 * MIB  # an official batch is 30 MB


def open_cifar10(paths: tuple[Path, ...], split: str) -> Source:
    """Opens CIFAR-10 from image zips, the official .tar.gz (binary or python version), or a folder with any of them.

    In a folder, zips are distinguished by their names: train*.zip and test*.zip.
    """
    if all(path.suffix == ".zip" for path in paths):
        if wrong := [path.name for path in paths if path.name.startswith("test") != (split == "test")]:
            raise UserError(
                f"{wrong[0]} is not of the {split} split (only test*.zip is test): give zips of that split, or the "
                "folder with both"
            )
        return open_images(paths)
    if len(paths) != 1:
        raise UserError("cifar10 needs one folder or .tar.gz, or several zips")
    base = paths[0]
    batches = _TRAIN if split == "train" else ["test_batch"]
    if not base.is_dir():
        return _from_tar(base, batches, split)
    for folder in (base, base / "cifar10", base / "cifar-10-batches-bin", base / "cifar-10-batches-py"):
        if zips := sorted(folder.glob(f"{split}*.zip")):
            return open_images(tuple(zips))
        for suffix in (".bin", ""):
            files = {batch: folder / (batch + suffix) for batch in batches}
            if all(file.is_file() for file in files.values()):
                return _source(batches, lambda batch, files=files: _read_file(files[batch]), split)
        for tar in ("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"):
            if (folder / tar).is_file():
                return _from_tar(folder / tar, batches, split)
    raise UserError(
        f"{base} has no CIFAR-10: looked for {split}*.zip, {batches[0]}.bin, {batches[0]}, cifar-10-*.tar.gz"
    )


def _read_file(path: Path) -> bytes:
    if path.stat().st_size > _MAX_BATCH:
        raise UserError(f"{path} is larger than a CIFAR-10 batch")
    return path.read_bytes()


def _from_tar(path: Path, batches: list[str], split: str) -> Source:
    """Reads the batches out of the archive, in memory: nothing is unpacked to disk."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                stem = member.name.rsplit("/", 1)[-1].removesuffix(".bin")
                if stem in batches and member.isfile() and member.size <= _MAX_BATCH:
                    file = archive.extractfile(member)
                    found[stem] = file.read() if file else b""
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is not a complete .tar.gz: truncated or damaged ({error})") from error
    if missing := [batch for batch in batches if batch not in found]:
        raise UserError(f"{path} is not CIFAR-10: it has no {', '.join(missing)}")
    return _source(batches, found.__getitem__, split)


def _source(batches: list[str], read: Callable[[str], bytes], split: str) -> Source:
    images, labels = zip(*(_parse(batch, read(batch)) for batch in batches), strict=True)
    return source_of_arrays(np.concatenate(images), np.concatenate(labels), f"cifar10-{split}")


def _parse(batch: str, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """One batch -> images uint8 [N, 32, 32, 3], labels int64 [N]."""
    if data and data[0] <= 9 and len(data) % _RECORD == 0:  # a label; no pickle begins like this
        records = np.frombuffer(data, np.uint8).reshape(-1, _RECORD)
        planes, labels = records[:, 1:], records[:, 0].astype(np.int64)
    else:
        planes, labels = _parse_pickle(batch, data)
    if labels.min() < 0 or labels.max() > 9:
        raise UserError(f"{batch} is not a valid CIFAR-10 batch: labels must be 0 to 9")
    return planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


class _Inert:
    """Replaces the numpy array (and its dtype) in a batch pickle: stores the pickled data and does nothing with it."""

    state: tuple = ()

    def __init__(self, *args):
        self.args = args

    def __setstate__(self, state):
        self.state = state


class _BatchUnpickler(pickle.Unpickler):
    """Builds lists, bytes, numbers and `_Inert` objects and refuses all other globals, so that no foreign code is
    executed."""

    _INERT = frozenset({"_reconstruct", "ndarray", "dtype"})

    def find_class(self, module: str, name: str):
        if module.split(".")[0] == "numpy" and name in self._INERT:
            return _Inert
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes in protocol 2
            return lambda text, encoding: text.encode("latin-1")
        raise pickle.UnpicklingError(f"it needs {module}.{name}")


def _parse_pickle(batch: str, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    try:
        content = _BatchUnpickler(io.BytesIO(data), encoding="bytes").load()
        content = {key.decode() if isinstance(key, bytes) else key: value for key, value in content.items()}
        _, shape, dtype, fortran, raw = content["data"].state
        labels = np.array(content["labels"], np.int64)
        if fortran or tuple(shape) != (len(labels), _RECORD - 1) or dtype.args[0] not in ("u1", b"u1"):
            raise ValueError(f"data of shape {shape}")
        return np.frombuffer(raw, np.uint8).reshape(shape), labels
    except Exception as error:  # a hostile or truncated pickle can raise anything
        raise UserError(f"{batch} is not a valid CIFAR-10 batch: {reason(error)}") from error
