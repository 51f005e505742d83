"""LSUN's format: databases that the test writes with the package lmdb itself."""

import sys

import numpy as np
import pytest
from PIL import Image

from sddpm.data import open_dataset
from sddpm.errors import UserError


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 256, (5, 12, 16, 3), dtype=np.uint8)


@pytest.fixture
def database(tmp_path, encode):
    """database(name, {key: bytes}) -> the folder of a new LMDB."""
    lmdb = pytest.importorskip("lmdb")

    def make(name, content):
        folder = tmp_path / name
        with lmdb.open(str(folder), map_size=1 << 24) as env, env.begin(write=True) as transaction:
            for key, value in content.items():
                transaction.put(key, value)
        (folder / "lock.mdb").unlink()
        return folder

    return make


def test_images_are_read_by_key(database, pictures, encode):
    """Lossless WebP, as LSUN's own but for the loss; the squares from the middle, in the order of the keys."""
    keys = [b"e1f0", b"00aa", b"ff\xff", b"7c", b"9d" * 20]
    content = {key: encode(image, "WEBP", lossless=True) for key, image in zip(keys, pictures, strict=True)}
    folder = database("bedroom_train_lmdb", content)
    before = sorted(path.name for path in folder.iterdir())
    order = sorted(range(5), key=lambda i: keys[i])
    expected = pictures[order][:, :, 2:14].transpose(0, 3, 1, 2)
    for memory_limit in (1 << 30, 1):  # all at once, or by several threads when asked for
        dataset = open_dataset("lsun", folder, image_size=12, memory_limit=memory_limit)
        assert dataset.names == [keys[i].decode("latin-1") for i in order] and dataset.labels is None
        assert np.array_equal(dataset.gather(range(5)).numpy(), expected)
    assert sorted(path.name for path in folder.iterdir()) == before == ["data.mdb"]
    assert len(open_dataset(folder, image_size=12, limit=2)) == 2


def test_a_damaged_image_is_left_out_and_named(database, pictures, encode):
    folder = database("a", {b"good": encode(pictures[0]), b"bad": b"no image", b"cut": encode(pictures[1])[:200]})
    dataset = open_dataset("lsun", folder, image_size=12)
    assert dataset.names == ["good"] and {name for name, _ in dataset.skipped} == {"bad", "cut"}


def test_beside_other_folders(database, pictures, encode, tmp_path):
    folder = database("a", {b"k": encode(pictures[0])})
    (tmp_path / "b").mkdir()
    Image.fromarray(pictures[1]).save(tmp_path / "b" / "x.png")
    assert open_dataset([folder, tmp_path / "b"], image_size=12).names == ["a/k", "b/x.png"]


def test_what_is_no_whole_database_is_one_line(database, pictures, encode, tmp_path):
    """Also where the file ends too early, of which the mapped memory would make a crash."""
    folder = database("cut", {b"%d" % i: bytes(9000) for i in range(50)})
    file = folder / "data.mdb"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(UserError, match=r"cut/data\.mdb is incomplete: it has [\d,]+ of [\d,]+ bytes$"):
        open_dataset("lsun", folder)
    file.write_bytes(b"something else" * 1000)
    with pytest.raises(UserError, match="is not a readable LMDB database"):
        open_dataset("lsun", folder)
    with pytest.raises(UserError, match="no images in"):
        open_dataset("lsun", database("empty", {}))


def test_without_the_package_a_line_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "data.mdb").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "lmdb", None)  # whose import then fails
    with pytest.raises(UserError, match=r"is an LMDB database: reading it needs `pip install lmdb`$"):
        open_dataset("lsun", tmp_path)
