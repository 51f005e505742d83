"""Images to be compared: identity by pixels, folders that change meanwhile, and copies."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from sddpm.data import open_dataset
from sddpm.errors import UserError
from sddpm.evaluation import copies as copies_module
from sddpm.evaluation.copies import near_copies, refuse_overlap
from sddpm.evaluation.images import (
    ImageSet,
    Watched,
    check_alike,
    open_images,
    snapshot,
)
from sddpm.evaluation.npz_images import NpzImages
from sddpm.files import atomic_path


def save(path, array):
    np.savez(path, array)
    return path


def as_set(pixels, tmp_path, name):
    """uint8 [N, 1, H, W] as an `ImageSet`."""
    images = NpzImages(save(tmp_path / f"{name}.npz", pixels.permute(0, 2, 3, 1).numpy()))
    return ImageSet(images, len(images))


def test_images_are_known_by_their_pixels(tmp_path, blobs):
    a, again, other = (as_set(blobs(5, seed), tmp_path, str(i)) for i, seed in enumerate((0, 0, 1)))
    assert a.identity == again.identity != other.identity
    assert ImageSet(a.source, 4).identity != a.identity
    assert a.digests[:4] == ImageSet(a.source, 4).digests
    flat = NpzImages(save(tmp_path / "flat.npz", a.source.gather(range(5)).numpy().reshape(5, 8, 8)))
    assert ImageSet(flat, 5).identity == a.identity


def write_folder(folder, pixels):
    folder.mkdir(exist_ok=True)
    for i, image in enumerate(pixels):
        Image.fromarray(image[0].numpy()).save(folder / f"{i:03d}.png")
    return folder


def test_folders_zips_and_data_sets(tmp_path, blobs):
    folder = write_folder(tmp_path / "images", blobs(4, 0))
    assert torch.equal(open_images(str(folder)).gather(range(4)), blobs(4, 0))
    assert open_images(str(folder), channels=3, image_size=16).gather([0]).shape == (1, 3, 16, 16)
    assert len(open_images("digits", image_size=8)) == 1797
    np.savez(tmp_path / "x.npz", np.zeros((2, 8, 8), np.uint8))
    with pytest.raises(UserError, match="not resized or converted: they are grey 8x8"):
        open_images(str(tmp_path / "x.npz"), image_size=16)


def test_images_of_another_size_or_mode_are_refused(tmp_path, blobs):
    folder = write_folder(tmp_path / "images", blobs(4, 0))
    dataset = open_dataset(folder)
    check_alike((1, 8), dataset)
    with pytest.raises(UserError, match=r"samples are grey 16x16, the reference .images. grey 8x8: .*image_size"):
        check_alike((1, 16), dataset)
    with pytest.raises(UserError, match=r"samples are colour 8x8, .* grey 8x8: .*channels"):
        check_alike((3, 8), dataset)
    Image.new("L", (9, 9)).save(folder / "odd.png")
    with pytest.raises(UserError, match=r"odd\.png has 9x9 pixels"):
        open_images(str(folder))


def test_a_folder_that_changes_meanwhile_is_noticed(tmp_path, blobs):
    folder = write_folder(tmp_path / "images", blobs(3, 0))
    watched = Watched.of(str(folder))
    watched.refuse_changes()
    Image.new("L", (8, 8)).save(folder / "003.png")
    with pytest.raises(UserError, match=r"was written to during the evaluation \(1 files changed, such as 003\.png"):
        watched.refuse_changes()
    watched = Watched.of(str(folder))
    Image.new("L", (8, 8), 255).save(folder / "001.png")
    with pytest.raises(UserError, match=r"001\.png"):
        watched.refuse_changes()
    watched = Watched.of(str(folder))
    (folder / "result.json").write_text("{}")  # no image: what one writes beside them does no harm
    watched.refuse_changes()
    assert Watched.of(str(tmp_path / "nowhere")) is Watched.of(None) is None


def test_changes_behind_a_link_are_noticed(tmp_path, blobs):
    folder, other = write_folder(tmp_path / "images", blobs(3, 0)), write_folder(tmp_path / "other", blobs(2, 1))
    (folder / "more").symlink_to(other)
    (other / "back").symlink_to(folder)
    assert [name for name, *_ in snapshot(folder)] == ["000.png", "001.png", "002.png", "more/000.png", "more/001.png"]
    watched = Watched.of(str(folder))
    (other / "001.png").unlink()
    with pytest.raises(UserError, match=r"1 files changed, such as more/001\.png"):
        watched.refuse_changes()


def test_a_folder_with_a_half_written_image_is_being_written_to(tmp_path, blobs):
    folder = write_folder(tmp_path / "images", blobs(3, 0))
    (folder / ".000004.png.abcd").mkdir()
    (folder / ".000004.png.abcd" / "000004.png").write_bytes(b"half")
    with pytest.raises(UserError, match=r"is being written to .* or delete .*/\.000004\.png\.abcd if nothing writes"):
        snapshot(folder)


def test_what_a_killed_process_left_is_not_being_written_to(tmp_path, blobs):
    folder = write_folder(tmp_path / "images", blobs(3, 0))
    before = snapshot(folder)
    program = (
        "import os, sys; from pathlib import Path; from sddpm.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(b'half')\n"
        "    os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, folder / "000004.png"], check=False)
    assert len(list(folder.glob(".000004.png.*/new/000004.png"))) == 1
    assert snapshot(folder) == before
    with atomic_path(folder / "000004.png") as temporary:
        temporary.write_bytes(b"half")
        with pytest.raises(UserError, match="is being written to"):
            snapshot(folder)


def test_overlap_of_samples_and_reference(tmp_path, blobs):
    reference = as_set(blobs(200, 0), tmp_path, "reference")
    fresh = as_set(blobs(200, 1), tmp_path, "fresh")
    assert refuse_overlap(fresh, reference, allowed=False) == 0
    few = as_set(torch.cat([blobs(200, 1)[2:], blobs(200, 0)[:2]]), tmp_path, "few")
    assert refuse_overlap(few, reference, allowed=False) == 2
    many = as_set(torch.cat([blobs(200, 1)[3:], blobs(200, 0)[:3]]), tmp_path, "many")
    assert refuse_overlap(many, reference, allowed=True) == 3
    with pytest.raises(UserError, match=r"3 of 200 samples are images of reference; .*allow_overlap=True"):
        refuse_overlap(many, reference, allowed=False)


def test_near_copies_are_counted(tmp_path, blobs):
    training = as_set(blobs(120, 0), tmp_path, "training").source
    copies = blobs(120, 0)[:5]
    copies[:, 0, 0, :2] ^= 4  # two pixels changed a little
    samples = as_set(torch.cat([blobs(15, 1), copies]), tmp_path, "samples")
    found = near_copies(samples, training)
    assert (found["checked"], found["count"], found["share"]) == (20, 5, 0.25)
    assert [pair[:2] for pair in sorted(found["pairs"])] == [(15 + i, i) for i in range(5)]
    assert found["pairs"][0][2] == pytest.approx(32**0.5)
    assert near_copies(samples, training, limit=15)["count"] == 0


def test_near_copies_are_numbered_over_all_samples(tmp_path, blobs, monkeypatch):
    """Three samples of 8 x 8 float64 at a time: the copies are in the third and fourth three."""
    monkeypatch.setattr(copies_module, "_QUERIES", 3 * 8 * 8 * 8)
    training = as_set(blobs(60, 0), tmp_path, "training").source
    samples = as_set(torch.cat([blobs(8, 1), blobs(60, 0)[[7, 3]], blobs(1, 2)]), tmp_path, "samples")
    found = near_copies(samples, training)
    assert sorted(found["pairs"]) == [(8, 7, 0.0), (9, 3, 0.0)] and (found["checked"], found["count"]) == (11, 2)


@pytest.mark.parametrize(("distance", "copied"), [(26, 1), (28, 0)])
def test_a_near_copy_is_half_as_far_as_the_mean_of_the_50_nearest(tmp_path, distance, copied):
    """Of the 50 nearest, 48 are 50 grey levels away and the last is 250: the mean is 53.5. Thirty more do not count."""
    grey = torch.zeros(80, 1, 8, 8, dtype=torch.uint8)
    grey[:, 0, 0, 0] = torch.tensor([distance, *[50] * 48, *[250] * 31])
    samples = as_set(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), tmp_path, "samples")
    assert near_copies(samples, as_set(grey, tmp_path, "training").source)["count"] == copied
