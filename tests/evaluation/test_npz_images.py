"""Images in an .npz: the same as NumPy reads them, in little memory, and one line about what is wrong with others."""

import tracemalloc

import numpy as np
import pytest
import torch

from sddpm.errors import UserError
from sddpm.evaluation.npz_images import NpzImages


def save(path, array):
    np.savez(path, array)
    return path


@pytest.mark.parametrize("save_array", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_any_images_in_any_order(tmp_path, save_array, dtype):
    pixels = np.random.default_rng(1).integers(0, 256, (50, 8, 8, 3), np.uint8)
    save_array(
        tmp_path / "a.npz", arr_0=pixels if dtype == np.uint8 else (pixels / 255).astype(dtype), arr_1=np.ones(50)
    )
    images = NpzImages(tmp_path / "a.npz")
    assert len(images) == len(images.names) == 50
    for chosen in (range(50), [7], [49, 3, 4, 5, 3], torch.tensor([10, 12, 11]), []):
        expected = pixels[np.asarray(chosen, int)].transpose(0, 3, 1, 2)
        assert np.array_equal(images.gather(chosen).numpy(), expected)


@pytest.mark.parametrize("save_array", [np.savez, np.savez_compressed])
def test_only_what_is_asked_for_is_in_memory(tmp_path, save_array):
    save_array(tmp_path / "a.npz", np.zeros((20_000, 64, 64, 1), np.uint8))  # 82 MB
    tracemalloc.start()
    images = NpzImages(tmp_path / "a.npz")
    images.gather(range(19_000, 19_100))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20


@pytest.mark.parametrize("channels", [1, 3])
def test_npz_of_uint8_and_of_floats_are_the_same_images(tmp_path, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, channels), np.uint8)
    exact = NpzImages(save(tmp_path / "a.npz", pixels))
    assert (exact.channels, exact.image_size, len(exact)) == (channels, 8, 5)
    assert np.array_equal(exact.gather([3, 1]).numpy(), pixels[[3, 1]].transpose(0, 3, 1, 2))
    rounded = NpzImages(save(tmp_path / "b.npz", (pixels / 255).astype(np.float32)))
    assert torch.equal(rounded.gather(range(5)), exact.gather(range(5)))
    if channels == 1:
        assert torch.equal(NpzImages(save(tmp_path / "c.npz", pixels[..., 0])).gather(range(5)), exact.gather(range(5)))


def test_floats_are_rounded_as_a_png_would(tmp_path):
    values = np.array([[[2.5, 3.5], [126.5, 127.5]]]) / 255  # half to even
    assert NpzImages(save(tmp_path / "a.npz", values)).gather([0]).flatten().tolist() == [2, 4, 126, 128]
    values = np.full((1, 2, 2), 100.4 / 255)
    assert NpzImages(save(tmp_path / "b.npz", values)).gather([0]).unique().tolist() == [100]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.where(np.arange(8).reshape(2, 2, 2) == 5, np.nan, 0.5), "1 of 2 images hold NaN"),
        (np.full((2, 4, 4), -1.0), r"must lie in \[0, 1\], these in \[-1, -1\]"),
        (np.zeros((2, 4, 4), np.int64), "must be uint8"),
        (np.zeros((2, 3, 4, 4), np.uint8), r"\[N, H, W, 1 or 3\], not \[2, 3, 4, 4\]"),
        (np.zeros((4, 4), np.uint8), r"not \[4, 4\]"),
        (np.zeros((0, 4, 4), np.uint8), r"not \[0, 4, 4\]"),
        (np.zeros((2, 4, 5), np.uint8), "must be square, not 5x4"),
        (np.zeros((4, 4, 2), np.uint8).T, "Fortran order"),
        (np.array([{}]), "not an .npz of images: it holds Python objects"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(tmp_path, array, message):
    with pytest.raises(UserError, match=message) as caught:
        NpzImages(save(tmp_path / "bad.npz", array))
    assert "\n" not in str(caught.value)


def test_truncated_or_other_npz(tmp_path):
    content = save(tmp_path / "a.npz", np.zeros((9, 8, 8), np.uint8)).read_bytes()
    (tmp_path / "a.npz").write_bytes(content[:-50])
    with pytest.raises(UserError, match="truncated"):
        NpzImages(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", x=np.zeros(2), y=np.zeros(2))
    with pytest.raises(UserError, match=r"an array arr_0 with images, it has x, y"):
        NpzImages(tmp_path / "b.npz")


@pytest.mark.parametrize("save_array", [np.savez, np.savez_compressed])
def test_a_flipped_bit_is_noticed(tmp_path, save_array):
    save_array(tmp_path / "a.npz", np.random.default_rng(2).integers(0, 256, (20, 8, 8), np.uint8))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[len(content) // 2] ^= 16
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"not an \.npz of images, or is truncated") as caught:
        NpzImages(tmp_path / "a.npz")
    assert "\n" not in str(caught.value)
