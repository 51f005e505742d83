"""Modes, bit depths, crops and filters, against Pillow called directly and hand-computed values."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from sddpm.data import open_dataset
from sddpm.data.pixels import crop_box
from sddpm.errors import UserError


@pytest.fixture
def first(tmp_path, encode, make_folder):
    """first(image bytes, **options) -> the image as the data set holds it, uint8 numpy [C, H, W]."""

    def read(data: bytes, suffix: str = "png", **options) -> np.ndarray:
        return open_dataset(make_folder(tmp_path / "one", {f"a.{suffix}": data}), **options)[0].numpy()

    return read


def png16(values: np.ndarray) -> bytes:
    """A 16-bit PNG, grey [H, W] or RGB [H, W, 3], by the PNG specification."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, 0 if values.ndim == 2 else 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_sixteen_bit_grey_is_scaled_not_clipped(first):
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    got = first(png16(values))
    assert got.shape == (1, 64, 64)
    assert np.array_equal(got[0], np.floor(values / 257 + 0.5).astype(np.uint8))


def test_sixteen_bit_transparency_is_laid_over_white(first):
    """tRNS of a grey PNG names the one value, of 16 bits, that is transparent (PNG specification, 11.3.2.1)."""
    values = np.array([[0x0101, 0x0202], [0xFFFE, 0x0202]], np.uint16)
    content = png16(values)
    body = b"tRNS" + struct.pack(">H", 0x0202)
    chunk = struct.pack(">I", 2) + body + struct.pack(">I", zlib.crc32(body))
    place = content.index(b"IDAT") - 4
    assert first(content[:place] + chunk + content[place:])[0].tolist() == [[1, 255], [255, 255]]


def test_sixteen_bit_colour_is_right_to_one_level(first):
    values = np.random.default_rng(0).integers(0, 65536, (16, 16, 3)).astype(np.uint16)
    got = first(png16(values)).transpose(1, 2, 0)
    assert np.abs(got - values / 257).max() <= 1


def test_sixteen_bit_tiff(first, encode):
    values = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)
    assert np.array_equal(first(encode(values, "TIFF"), "tif")[0], np.floor(values / 257 + 0.5).astype(np.uint8))


def test_cmyk_becomes_colour(first, encode):
    ink = Image.new("CMYK", (8, 8), (255, 0, 0, 0))  # full cyan, no magenta nor yellow
    red, green, blue = first(encode(ink, "TIFF"), "tif")[:, 4, 4]
    assert (red, green, blue) == (0, 255, 255)
    assert first(encode(ink, "JPEG", quality=95), "jpg").shape == (3, 8, 8)


def test_palette_is_grey_only_if_its_pixels_are(first, encode):
    colour = np.zeros((4, 4, 3), np.uint8)
    colour[0, 0] = 10, 200, 30
    palette = Image.fromarray(colour).convert("P", palette=Image.Palette.ADAPTIVE)
    assert np.array_equal(first(encode(palette)), colour.transpose(2, 0, 1))
    grey = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4)).convert("P")
    assert first(encode(grey)).shape == (1, 4, 4)


def test_bilevel_becomes_black_and_white(first, encode):
    bits = np.eye(8, dtype=bool)
    assert np.array_equal(first(encode(Image.fromarray(bits)))[0], bits.astype(np.uint8) * 255)


def test_transparency_is_laid_over_white(first, encode):
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = 200, 100, 0, 255
    rgba[0, 1] = 0, 0, 0, 0
    rgba[1, 1] = 0, 0, 0, 51  # a fifth of black over white: 204
    got = first(encode(rgba))
    assert got[:, 0, 0].tolist() == [200, 100, 0]
    assert got[:, 0, 1].tolist() == [255, 255, 255]
    assert got[:, 1, 1].tolist() == [204, 204, 204]
    grey = Image.merge("LA", [Image.new("L", (2, 2), 0), Image.new("L", (2, 2), 51)])
    assert np.array_equal(first(encode(grey)), np.full((1, 2, 2), 204))


def test_exif_orientation_is_applied(first, encode):
    upright = np.zeros((16, 16), np.uint8)
    upright[:8] = 255  # bright sky above
    exif = Image.Exif()
    exif[0x0112] = 3  # stored upside down
    got = first(encode(upright[::-1, ::-1].copy(), "JPEG", quality=95, exif=exif), "jpg")[0]
    assert got[:7].min() > 240 and got[9:].max() < 15


def test_grey_to_colour_and_back(first, encode):
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert np.array_equal(first(encode(grey), channels=3), np.stack([grey] * 3))
    colour = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    luma = colour @ np.array([0.299, 0.587, 0.114])  # ITU-R 601
    assert np.abs(first(encode(colour), channels=1)[0] - luma).max() <= 1


@pytest.mark.parametrize("name", ["nearest", "box", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [5, 32])
def test_filters_are_pillows(first, encode, name, size):
    image = np.random.default_rng(2).integers(0, 256, (28, 28), np.uint8)
    expected = Image.fromarray(image).resize((size, size), Image.Resampling[name.upper()])
    assert np.array_equal(first(encode(image), image_size=size, resize=name)[0], np.asarray(expected))


def test_published_crops():
    assert crop_box("ddim64", 178, 218) == (25, 57, 153, 185)  # cx, cy = 89, 121, 64 to each side
    assert crop_box("ddim64", 89, 109) == (12, 28, 76, 92)
    assert crop_box("center148", 178, 218) == (15, 35, 163, 183)
    left, upper, right, lower = crop_box("center148", 89, 109)
    assert (right - left, lower - upper) == (74, 74)
    assert abs(left + right - 89) <= 1 and abs(upper + lower - 109) <= 1


def test_crop_then_resize(first, encode):
    image = np.random.default_rng(3).integers(0, 256, (218, 178, 3), np.uint8)
    data = encode(image)
    assert np.array_equal(first(data, crop="ddim64"), image[57:185, 25:153].transpose(2, 0, 1))
    expected = Image.fromarray(image[35:183, 15:163]).resize((64, 64), Image.Resampling.BICUBIC)
    got = first(data, crop="center148", image_size=64, resize="bicubic")
    assert np.array_equal(got, np.asarray(expected).transpose(2, 0, 1))


def test_celeba_takes_center148_unless_told(tmp_path, encode, make_folder):
    image = np.random.default_rng(3).integers(0, 256, (218, 178, 3), np.uint8)
    folder = make_folder(tmp_path / "img_align_celeba", {"000001.png": encode(image)})
    assert open_dataset("celeba", folder).image_size == 148
    assert open_dataset("celeba", folder, crop="ddim64").image_size == 128
    assert torch.equal(open_dataset("celeba", folder)[0], open_dataset(folder, crop="center148")[0])


def test_a_resize_takes_the_centred_square(first, encode):
    image = np.random.default_rng(4).integers(0, 256, (10, 20), np.uint8)
    expected = Image.fromarray(image[:, 5:15]).resize((6, 6), Image.Resampling.BILINEAR)
    assert np.array_equal(first(encode(image), image_size=6)[0], np.asarray(expected))


def test_without_a_size_pictures_must_be_square_and_equal(tmp_path, first, encode, make_folder):
    with pytest.raises(UserError, match=r"20x10 pixels, which is not square: give an image_size"):
        first(encode(np.zeros((10, 20), np.uint8)))
    files = {"a.png": encode(np.zeros((8, 8), np.uint8)), "b.png": encode(np.zeros((9, 9), np.uint8))}
    folder = make_folder(tmp_path / "two", files)
    for memory_limit in (1 << 30, 0):
        with pytest.raises(UserError, match=r"b\.png has 9x9 pixels, the first image 8x8"):
            open_dataset(folder, memory_limit=memory_limit)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 2}, "channels must be 1"),
        ({"image_size": 0}, "image_size"),
        ({"image_size": 32.0}, "image_size"),
        ({"image_size": True}, "image_size"),
        ({"resize": "cubic"}, "bicubic"),
        ({"crop": "middle"}, "center148"),
        ({"limit": 0}, "limit"),
        ({"limit": -3}, "limit"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(UserError, match=message):
        open_dataset("digits", **options)
