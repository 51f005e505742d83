"""Folders and zips: order, labels, archives together, and bad input of every kind."""

import errno
import json
import logging
import os
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sddpm.data import open_dataset
from sddpm.data.classes import use_class_order
from sddpm.errors import UserError
from sddpm.training.batches import check_labels


def as_tensor(pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)


@pytest.fixture
def edm_files(pictures, encode):
    names = [f"0000{i % 2}/img{i:08d}.png" for i in range(len(pictures))]
    files = {name: encode(picture) for name, picture in zip(names, pictures, strict=True)}
    labels = [[name, i % 3] for i, name in enumerate(names)]
    return files | {"dataset.json": json.dumps({"labels": labels}).encode()}


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_edm_layout_with_labels(tmp_path, pictures, edm_files, make_zip, make_folder, kind):
    path = (make_zip if kind == "zip" else make_folder)(tmp_path / f"edm.{kind}", edm_files)
    ds = open_dataset(path)
    order = [0, 2, 4, 6, 8, 1, 3, 5, 7, 9]  # sorted by name
    assert torch.equal(ds.images, as_tensor(pictures[order]))
    assert ds.labels.tolist() == [i % 3 for i in order] and ds.labels.dtype == torch.int64
    assert ds.names[0] == "00000/img00000000.png"


@pytest.mark.parametrize("how", ["list", "commas", "path"])
def test_archives_that_number_alike_stay_apart(tmp_path, pictures, encode, make_zip, how):
    def archive(name: str, part: np.ndarray, label: int):
        files = {f"img{i}.png": encode(picture) for i, picture in enumerate(part)}
        labels = [[file, label] for file in files]
        return make_zip(tmp_path / name, files | {"dataset.json": json.dumps({"labels": labels}).encode()})

    paths = [archive("train-0.zip", pictures[:5], 0), archive("train-1.zip", pictures[5:], 1)]
    text = ",".join(map(str, paths))
    ds = {
        "list": lambda: open_dataset(paths),
        "commas": lambda: open_dataset(text),
        "path": lambda: open_dataset("cifar10", text),
    }[how]()
    assert torch.equal(ds.images, as_tensor(pictures))
    assert ds.labels.tolist() == [0] * 5 + [1] * 5
    assert ds.names == [f"train-{k}.zip/img{i}.png" for k in range(2) for i in range(5)]


def test_same_archive_name_in_two_folders(tmp_path, pictures, encode, make_zip, make_folder):
    make_folder(tmp_path / "a", {}), make_folder(tmp_path / "b", {})
    paths = [make_zip(tmp_path / x / "t.zip", {"0.png": encode(pictures[i])}) for i, x in enumerate("ab")]
    assert len(set(open_dataset(paths).names)) == 2
    with pytest.raises(UserError, match="listed twice"):
        open_dataset([paths[0], paths[0]])


def test_class_folders_are_labels_but_shards_are_not(tmp_path, pictures, encode, make_folder):
    files = {f"{name}/{i}.png": encode(pictures[i]) for i, name in enumerate(["dog", "cat", "dog", "ant"])}
    ds = open_dataset(make_folder(tmp_path / "classes", files))
    assert dict(zip(ds.names, ds.labels.tolist(), strict=True)) == {
        "ant/3.png": 0,
        "cat/1.png": 1,
        "dog/0.png": 2,
        "dog/2.png": 2,
    }
    shards = make_folder(tmp_path / "shards", {f"0000{i}/{i}.png": encode(pictures[i]) for i in range(3)})
    assert open_dataset(shards).labels is None
    assert open_dataset("lsun", tmp_path / "classes").labels is None
    mixed = make_folder(tmp_path / "classes", {"loose.png": encode(pictures[5])})
    assert open_dataset(mixed).labels is None


def test_recursive_sorted_and_only_images(tmp_path, pictures, encode, make_folder):
    files = {"b/c/2.PNG": encode(pictures[2]), "b/1.bmp": encode(pictures[1], "BMP"), "a.webp": b""}
    files["a.webp"] = encode(pictures[0], "WEBP", lossless=True)
    files |= {"notes.txt": b"x", ".hidden.png": b"x", "__MACOSX/._a.png": b"x"}
    ds = open_dataset(make_folder(tmp_path / "f", files))
    assert ds.names == ["a.webp", "b/1.bmp", "b/c/2.PNG"] and ds.skipped == []
    assert torch.equal(ds.images, as_tensor(pictures[:3]))


def test_folder_with_one_zip_is_that_zip(tmp_path, pictures, encode, make_zip):
    make_zip(tmp_path / "only.zip", {"0.png": encode(pictures[0])})
    assert len(open_dataset(tmp_path)) == 1
    make_zip(tmp_path / "other.zip", {"0.png": encode(pictures[0])})
    with pytest.raises(UserError, match="several zips"):
        open_dataset(tmp_path)


def test_an_image_alone(tmp_path, pictures, encode, make_folder):
    folder = make_folder(tmp_path / "f", {"a.png": encode(pictures[0]), "b.PNG": encode(pictures[1])})
    ds = open_dataset(folder / "b.PNG")
    assert torch.equal(ds.images, as_tensor(pictures[1:2])) and ds.names == ["b.PNG"] and ds.labels is None
    with pytest.raises(UserError, match=r"c\.png"):
        open_dataset(folder / "c.png")
    (folder / "text.png").write_text("words")
    with pytest.raises(UserError, match="none of the 1 images"):
        open_dataset(folder / "text.png")


def test_limit_takes_the_first(tmp_path, edm_files, make_zip):
    path = make_zip(tmp_path / "x.zip", edm_files)
    assert torch.equal(open_dataset(path, limit=3).images, open_dataset(path).images[:3])
    assert len(open_dataset(path, limit=3).labels) == 3
    assert len(open_dataset(path, limit=999)) == 10


@pytest.fixture
def bad_files(pictures, encode):
    good = encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    return {
        "text.png": b"I am no picture",
        "empty.png": b"",
        "one.png": encode(np.zeros((1, 1), np.uint8)),
        "truncated.png": good[: len(good) // 2],
        "truncated.jpg": encode(pictures[0].repeat(20, 0).repeat(20, 1), "JPEG")[:3000],
        "float.tif": encode(np.zeros((8, 8), np.float32), "TIFF"),
        "int32.tif": encode(np.full((8, 8), 70000, np.int32), "TIFF"),
        "script.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    }


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_bad_pictures_are_named_counted_and_left_out(
    tmp_path, pictures, bad_files, encode, make_zip, make_folder, caplog, kind
):
    good = {f"good/{i}.png": encode(pictures[i]) for i in range(4)}
    path = (make_zip if kind == "zip" else make_folder)(tmp_path / f"mixed.{kind}", bad_files | good)
    with caplog.at_level(logging.WARNING):
        ds = open_dataset(path, image_size=8, channels=3)
    assert torch.equal(ds.images, as_tensor(pictures[:4]))
    assert sorted(name for name, _ in ds.skipped) == sorted(bad_files)
    reasons = dict(ds.skipped)
    assert reasons["text.png"] == reasons["empty.png"] == reasons["script.png"] == "not an image"
    assert "1x1" in reasons["one.png"] and "truncated" in reasons["truncated.jpg"]
    assert "floating-point" in reasons["float.tif"] and "0..65535" in reasons["int32.tif"]
    assert len(caplog.records) == 1 and "8 of 12 images skipped" in caplog.text


def test_labels_stay_with_their_pictures_when_some_are_bad(tmp_path, pictures, encode, make_folder):
    files = {f"{i}.png": encode(pictures[i]) if i % 2 else b"bad" for i in range(10)}
    files["dataset.json"] = json.dumps({"labels": [[f"{i}.png", i] for i in range(10)]}).encode()
    ds = open_dataset(make_folder(tmp_path / "x", files))
    assert ds.labels.tolist() == [1, 3, 5, 7, 9] and ds.names == [f"{i}.png" for i in (1, 3, 5, 7, 9)]
    assert torch.equal(ds.images, as_tensor(pictures[1::2]))


@pytest.mark.parametrize("memory_limit", [1 << 30, 0])
@pytest.mark.parametrize("image_size", [None, 8])
def test_all_bad_is_an_error_that_names_the_first(tmp_path, bad_files, make_folder, memory_limit, image_size):
    folder = make_folder(tmp_path / "bad", bad_files)
    with pytest.raises(UserError, match=r"none of the 8 images of bad can be used: empty\.png \(not an image\)"):
        open_dataset(folder, image_size=image_size, memory_limit=memory_limit)


def test_nothing_there(tmp_path, make_folder, make_zip):
    with pytest.raises(UserError, match="no images in"):
        open_dataset(make_folder(tmp_path / "empty", {}))
    with pytest.raises(UserError, match="no images in"):
        open_dataset(make_zip(tmp_path / "empty.zip", {"readme.txt": b"hello"}))


@pytest.mark.parametrize(
    "name", ["../../evil.png", "/etc/evil.png", "a/../../evil.png", "..\\evil.png", "C:\\evil.png"]
)
def test_names_that_leave_the_archive_are_refused(tmp_path, pictures, encode, make_zip, name, caplog):
    before = sorted(tmp_path.parent.rglob("*evil*"))
    path = make_zip(tmp_path / "x.zip", {name: encode(pictures[0]), "fine.png": encode(pictures[1])})
    ds = open_dataset(path)
    assert ds.names == ["fine.png"]
    assert len(ds.skipped) == 1 and "unsafe name" in ds.skipped[0][1] and "1 of 2 images skipped" in caplog.text
    assert sorted(tmp_path.parent.rglob("*evil*")) == before
    with pytest.raises(UserError, match="unsafe name"):
        open_dataset(make_zip(tmp_path / "all.zip", {name: encode(pictures[0])}))


def peak_mib(action) -> float:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


def test_zip_bombs_are_refused_by_their_directory(tmp_path, pictures, encode, make_zip):
    bombs = {"big.png": bytes(80 << 20), "dense.png": bytes(20 << 20)}
    path = make_zip(tmp_path / "bomb.zip", bombs | {"ok.png": encode(pictures[0])}, zipfile.ZIP_DEFLATED)
    del bombs
    assert peak_mib(lambda: open_dataset(path)) < 5
    reasons = dict(open_dataset(path).skipped)
    assert "more than 64 MiB" in reasons["big.png"] and "zip bomb" in reasons["dense.png"]


def test_a_zip_entry_that_lies_about_its_size_is_not_expanded(tmp_path, pictures, encode, make_zip):
    size = 80 << 20
    path = make_zip(tmp_path / "lie.zip", {"lie.png": bytes(size)}, zipfile.ZIP_DEFLATED)
    data = path.read_bytes()
    assert data.count(struct.pack("<I", size)) == 2  # local header and directory
    path.write_bytes(data.replace(struct.pack("<I", size), struct.pack("<I", 5000)))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("ok.png", encode(pictures[0]))
    assert peak_mib(lambda: open_dataset(path)) < 5
    assert [name for name, _ in open_dataset(path).skipped] == ["lie.png"]


def test_pixel_bombs_are_refused_by_their_header(tmp_path, pictures, encode, make_folder):
    files = {"huge.png": encode(Image.new("1", (9000, 9000))), "ok.png": encode(pictures[0])}
    folder = make_folder(tmp_path / "x", files)
    assert peak_mib(lambda: open_dataset(folder, channels=3, image_size=8)) < 5
    assert "9000x9000 pixels: more than" in open_dataset(folder, channels=3, image_size=8).skipped[0][1]


@pytest.mark.parametrize("tenth", range(10))
def test_truncated_zip(tmp_path, edm_files, make_zip, tenth):
    path = make_zip(tmp_path / "x.zip", edm_files)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * tenth // 10])
    with pytest.raises(UserError, match="truncated or damaged"):
        open_dataset(path)


def test_entry_with_flipped_bytes_fails_its_checksum_alone(tmp_path, pictures, encode, make_zip):
    files = {"a.png": encode(pictures[0]), "b.bmp": encode(pictures[1], "BMP")}
    path = make_zip(tmp_path / "x.zip", files)
    path.write_bytes(path.read_bytes().replace(files["b.bmp"][-8:], bytes(8)))
    ds = open_dataset(path)
    assert ds.names == ["a.png"] and "CRC" in ds.skipped[0][1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not"),
        (b"[]", "is not"),
        (b'{"labels": 3}', "is not"),
        (b'{"labels": [["0.png", [1, 0]]]}', "is not"),
        (b'{"labels": [["0.png", 0.5]]}', "no whole-number label for '0.png'"),
        (b'{"labels": [["other.png", 1]]}', "no whole-number label for '0.png'"),
        (b"\xff\xfe\x00", "is not"),
        (b"[" * 100_000, "is not"),
    ],
)
def test_bad_dataset_json(tmp_path, pictures, encode, make_zip, caplog, content, message):
    path = make_zip(tmp_path / "x.zip", {"0.png": encode(pictures[0]), "dataset.json": content})
    with caplog.at_level("WARNING"):
        ds = open_dataset(path)  # only a model of classes needs them
    assert ds.labels is None and message in ds.label_problem and message in caplog.text
    with pytest.raises(UserError, match=f"has no usable labels .*{message}"):
        check_labels(ds, 10)
    check_labels(ds, None)


@pytest.mark.parametrize("label", [-1, 10**18])
def test_labels_that_number_no_class(tmp_path, pictures, encode, make_zip, label):
    content = json.dumps({"labels": [["0.png", label]]}).encode()
    ds = open_dataset(make_zip(tmp_path / "x.zip", {"0.png": encode(pictures[0]), "dataset.json": content}))
    with pytest.raises(UserError, match=f"has the label {label}: classes are numbered from 0"):
        check_labels(ds, 10)


def test_class_folders_that_are_links_are_read(tmp_path, pictures, encode, make_folder):
    files = {f"{name}/{i}.png": encode(pictures[i]) for i, name in enumerate(["dog", "cat"])}
    folder = make_folder(tmp_path / "x", files)
    make_folder(tmp_path / "elsewhere", {"2.png": encode(pictures[2])})
    (folder / "ant").symlink_to(tmp_path / "elsewhere")
    ds = open_dataset(folder)
    assert ds.names == ["ant/2.png", "cat/1.png", "dog/0.png"] and ds.class_names == ("ant", "cat", "dog")
    assert torch.equal(ds.images, as_tensor(pictures[[2, 1, 0]]))


def test_links_that_lead_back_are_not_followed(tmp_path, pictures, encode, make_folder):
    """To the folder itself, to one that leads to the first again, and to one above."""
    folder = make_folder(tmp_path / "x", {"a/0.png": encode(pictures[0])})
    other = make_folder(tmp_path / "y", {"1.png": encode(pictures[1])})
    (folder / "a" / "up").symlink_to(folder)
    (folder / "b").symlink_to(other)
    (other / "back").symlink_to(folder / "b")
    (other / "first").symlink_to(folder)
    (other / "above").symlink_to(tmp_path)
    assert open_dataset(folder).names == ["a/0.png", "b/1.png"]


def test_a_link_to_the_current_folder_may_lead_on(tmp_path, pictures, encode, make_folder, monkeypatch):
    make_folder(tmp_path / "x", {"0.png": encode(pictures[0])})
    monkeypatch.chdir(make_folder(tmp_path / "here", {"1.png": encode(pictures[1])}))
    (tmp_path / "x" / "link").symlink_to(tmp_path / "here")
    assert open_dataset("../x").names == ["0.png", "link/1.png"]


@pytest.mark.parametrize("harm", ["unreadable", "broken link"])
def test_a_class_is_not_left_out_in_silence(tmp_path, pictures, encode, make_folder, monkeypatch, harm):
    files = {f"{name}/{i}.png": encode(pictures[i]) for i, name in enumerate(["ant", "cat"])}
    folder, real = make_folder(tmp_path / "x", files), os.scandir
    make_folder(folder, {".hidden/1.png": b""})

    def scandir(path):
        if Path(path).name in ("dog", ".hidden"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    (folder / ".#editor").symlink_to("nowhere")
    (folder / "3.png").symlink_to("nowhere")
    assert len(open_dataset(folder)) == 2
    if harm == "unreadable":
        (folder / "dog").mkdir()
    else:
        (folder / "dog").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"cannot read .*dog: Perm|dog is a link to something that is not there"):
        open_dataset(folder)


def test_class_folders_are_in_natural_order(tmp_path, pictures, encode, make_folder):
    names = [f"{name}/0.png" for name in ("10", "2", "1", "cat 3", "cat 20", "b")]
    ds = open_dataset(make_folder(tmp_path / "x", {name: encode(pictures[0]) for name in names}))
    assert ds.class_names == ("1", "2", "10", "b", "cat 3", "cat 20")
    assert [ds.class_names[label] + "/0.png" for label in ds.labels] == ds.names


def test_class_folders_of_several_paths_are_one_class_by_name(tmp_path, pictures, encode, make_folder):
    for path, classes in {"pa": ("cat", "dog"), "pb": ("dog", "zebra")}.items():
        make_folder(tmp_path / path, {f"{name}/0.png": encode(pictures[0]) for name in classes})
    ds = open_dataset([tmp_path / "pa", tmp_path / "pb"])
    assert ds.class_names == ("cat", "dog", "zebra") and ds.labels.tolist() == [0, 1, 1, 2]


def test_classes_by_folder_and_by_number_are_not_mixed(tmp_path, pictures, encode, make_folder):
    make_folder(tmp_path / "pa", {f"{name}/0.png": encode(pictures[0]) for name in ("cat", "dog")})
    labels = json.dumps({"labels": [["0.png", 1]]}).encode()
    make_folder(tmp_path / "pb", {"0.png": encode(pictures[0]), "dataset.json": labels})
    ds = open_dataset([tmp_path / "pa", tmp_path / "pb"])
    assert ds.labels is None and "others by number" in ds.label_problem


def test_a_model_trained_on_another_order_of_classes_keeps_it(tmp_path, pictures, encode, make_folder):
    names = [f"{name}/0.png" for name in ("10", "2", "1")]
    ds = open_dataset(make_folder(tmp_path / "x", {name: encode(pictures[0]) for name in names}))
    use_class_order(ds, ["1", "10", "2"])  # as text, as former versions had them
    assert ds.class_names == ("1", "10", "2")
    assert [ds.class_names[label] + "/0.png" for label in ds.labels] == ds.names
    use_class_order(ds, ["a", "b", "c"])
    assert ds.class_names == ("1", "10", "2")


def test_a_zip_in_capitals_is_found(tmp_path, pictures, encode, make_zip):
    (tmp_path / "data").mkdir()
    make_zip(tmp_path / "data" / "X.ZIP", {"0.png": encode(pictures[0])})
    assert len(open_dataset(tmp_path / "data")) == 1


def test_grey_stored_in_colour_is_hinted_at(tmp_path, make_folder, encode, caplog):
    grey = np.repeat(np.arange(64, dtype=np.uint8).reshape(8, 8, 1), 3, 2)
    for name, image, hinted in (("grey", grey, True), ("colour", grey + np.array([0, 0, 1], np.uint8), False)):
        caplog.clear()
        folder = make_folder(tmp_path / name, {"0.png": encode(image)})
        assert open_dataset(folder).channels == 3 and ("channels=1" in caplog.text) == hinted
        caplog.clear()
        assert open_dataset(folder, channels=3).channels == 3 and not caplog.text


def test_dataset_json_without_labels(tmp_path, pictures, encode, make_zip):
    files = {"0.png": encode(pictures[0]), "dataset.json": b'{"labels": null}'}
    assert open_dataset(make_zip(tmp_path / "x.zip", files)).labels is None
