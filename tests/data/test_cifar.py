"""CIFAR-10's official forms, built here by their published layout, and hostile pickles."""

import io
import pickle
import pickletools
import tarfile

import numpy as np
import pytest

from sddpm.data import open_dataset
from sddpm.errors import UserError

PER_BATCH = 4
BATCHES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]


@pytest.fixture(scope="module")
def content():
    """Six batches of (planes uint8 [N, 3072], labels list)."""
    rng = np.random.default_rng(0)
    return {
        name: (rng.integers(0, 256, (PER_BATCH, 3072), np.uint8), rng.integers(0, 10, PER_BATCH).tolist())
        for name in BATCHES
    }


def as_binary(content) -> dict[str, bytes]:
    """<1 x label><3072 x pixel>, as the CIFAR page describes it."""
    return {
        f"cifar-10-batches-bin/{name}.bin": b"".join(
            bytes([label]) + row.tobytes() for label, row in zip(labels, planes, strict=True)
        )
        for name, (planes, labels) in content.items()
    }


def as_python(content) -> dict[str, bytes]:
    return {
        f"cifar-10-batches-py/{name}": pickle.dumps({b"data": planes, b"labels": labels}, protocol=2)
        for name, (planes, labels) in content.items()
    }


def as_python2(content) -> dict[str, bytes]:
    """Protocol 2 as Python 2 wrote the official files: 8-bit strings (SHORT_BINSTRING, BINSTRING), numpy.core."""

    def string(data: bytes) -> bytes:
        if len(data) < 256:
            return b"U" + bytes([len(data)]) + data
        return b"T" + len(data).to_bytes(4, "little") + data

    def number(n: int) -> bytes:
        return b"J" + n.to_bytes(4, "little", signed=True)

    def one(planes, labels) -> bytes:
        array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + number(0) + b"\x85" + string(b"b") + b"tR"
        dtype = b"cnumpy\ndtype\n" + string(b"u1") + number(0) + number(1) + b"\x87R("
        dtype += number(3) + string(b"|") + b"NNN" + number(-1) * 2 + number(0) + b"tb"
        shape = number(planes.shape[0]) + number(planes.shape[1]) + b"\x86"
        array += b"(" + number(1) + shape + dtype + b"\x89" + string(planes.tobytes()) + b"tb"
        pairs = string(b"data") + array + string(b"labels") + b"](" + b"".join(map(number, labels)) + b"e"
        return b"\x80\x02}(" + pairs + b"u."

    return {f"cifar-10-batches-py/{name}": one(*batch) for name, batch in content.items()}


def tar_of(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("form", [as_binary, as_python, as_python2])
@pytest.mark.parametrize("place", ["tar", "folder of the tar", "inner folder", "outer folder"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_official_forms(tmp_path, content, make_folder, form, place, split):
    files = form(content)
    if "tar" in place:
        name = "cifar-10-binary.tar.gz" if form is as_binary else "cifar-10-python.tar.gz"
        path = tar_of(tmp_path / name, files)
        path = path if place == "tar" else tmp_path
    else:
        path = make_folder(tmp_path / "x", files)
        path = next(path.iterdir()) if place == "inner folder" else path
    ds = open_dataset("cifar10", path, split=split)
    names = BATCHES[:5] if split == "train" else BATCHES[5:]
    planes = np.concatenate([content[name][0] for name in names]).reshape(-1, 3, 32, 32)
    assert np.array_equal(ds.images.numpy(), planes)
    assert ds.labels.tolist() == [label for name in names for label in content[name][1]]


def test_as_python2_is_a_valid_pickle_of_the_arrays(content):
    data = as_python2(content)["cifar-10-batches-py/test_batch"]
    pickletools.dis(data, out=io.StringIO())
    loaded = pickle.loads(data, encoding="bytes")  # our own bytes
    assert np.array_equal(loaded[b"data"], content["test_batch"][0])
    assert loaded[b"labels"] == content["test_batch"][1]


class Touch:
    """A pickle that creates a file when it is executed."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickles_are_not_executed(tmp_path, content, make_folder, protocol):
    trap = tmp_path / "executed"
    evil = pickle.dumps({b"data": Touch(trap), b"labels": [1]}, protocol=protocol)
    folder = make_folder(tmp_path / "x", as_python(content) | {"cifar-10-batches-py/test_batch": evil})
    with pytest.raises(UserError, match=r"test_batch is not a valid CIFAR-10 batch: it needs \w+\.open"):
        open_dataset("cifar10", folder, split="test")
    assert not trap.exists()
    pickle.loads(evil)[b"data"].close()
    assert trap.exists()  # the trap works where it is not refused


@pytest.mark.parametrize("tenth", range(10))
@pytest.mark.parametrize("form", [as_binary, as_python])
def test_truncated(tmp_path, content, make_folder, form, tenth):
    files = form(content)
    path = tar_of(tmp_path / "c.tar.gz", files)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * tenth // 10])
    with pytest.raises(UserError, match=r"truncated|it has no"):
        open_dataset("cifar10", path)
    name = next(name for name in files if "test_batch" in name)
    cut = files | {name: files[name][: len(files[name]) * tenth // 10 - 1]}
    with pytest.raises(UserError, match="not a valid CIFAR-10 batch"):
        folder = make_folder(tmp_path / "x", cut)
        open_dataset("cifar10", folder, split="test")


def test_wrong_content(tmp_path, content, make_folder):
    files = as_binary(content)
    files["cifar-10-batches-bin/test_batch.bin"] = bytes(3073) + bytes([10]) + bytes(3072)
    with pytest.raises(UserError, match=r"labels must be 0 to 9"):
        open_dataset("cifar10", make_folder(tmp_path / "x", files), split="test")
    wrong = pickle.dumps({b"data": np.zeros((2, 3072), np.float32), b"labels": [1, 2]}, protocol=2)
    folder = make_folder(tmp_path / "y", as_python(content) | {"cifar-10-batches-py/test_batch": wrong})
    with pytest.raises(UserError, match="not a valid CIFAR-10 batch"):
        open_dataset("cifar10", folder, split="test")
    with pytest.raises(UserError, match=r"has no CIFAR-10: looked for test\*\.zip"):
        open_dataset("cifar10", make_folder(tmp_path / "z", {}), split="test")


def test_zips_that_are_given_must_be_of_the_split(tmp_path, pictures, encode, make_zip):
    for i, name in enumerate(["train1.zip", "mine.zip", "test1.zip"]):
        make_zip(tmp_path / name, {"0.png": encode(pictures[i])})
    assert len(open_dataset("cifar10", tmp_path / "train1.zip")) == len(open_dataset("cifar10", tmp_path / "mine.zip"))
    assert len(open_dataset("cifar10", tmp_path / "test1.zip", split="test")) == 1
    for name, split in (("train1", "test"), ("mine", "test"), ("test1", "train")):
        with pytest.raises(UserError, match=rf"{name}\.zip is not of the {split} split"):
            open_dataset("cifar10", tmp_path / f"{name}.zip", split=split)


def test_zips_are_told_apart_by_split(tmp_path, pictures, encode, make_zip):
    for i, name in enumerate(["train-0.zip", "train-1.zip", "test.zip"]):
        make_zip(tmp_path / name, {"0.png": encode(pictures[i])})
    assert open_dataset("CIFAR-10", tmp_path).names == ["train-0.zip/0.png", "train-1.zip/0.png"]
    assert np.array_equal(open_dataset("cifar_10", tmp_path, split="test")[0].permute(1, 2, 0).numpy(), pictures[2])
