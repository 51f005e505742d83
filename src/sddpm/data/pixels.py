"""One stored image -> uint8 [C, H, W]: orientation, bit depth, colour, crop and resize, by Pillow on uint8 pixels."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from sddpm.choices import check_choice
from sddpm.errors import UserError

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
CROPS = ("center", "center148", "ddim64")
MAX_PIXELS = 50_000_000
_GREY_MODES = {"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"}
_CELEBA, _CELEBA_HALF = (178, 218), (89, 109)  # width, height of the aligned images, and of half-size copies
_ORIENTATION, _SIDEWAYS = 0x0112, {5, 6, 7, 8}


class BadImage(ValueError):
    """This image cannot be used; the message gives the reason."""


@dataclass(frozen=True)
class PixelSpec:
    """The target format of every image. `image_size` None: as stored; `crop` None: centred square before a resize."""

    channels: int
    image_size: int | None
    resize: str = "bilinear"
    crop: str | None = None


def is_colour(image: Image.Image) -> bool:
    """Whether the stored mode has colour (a palette image: whether any pixel is not grey)."""
    if image.mode == "P":
        palette = np.asarray(image.convert("RGB"))
        return bool((palette != palette[..., :1]).any())
    return image.mode not in _GREY_MODES


def check_size(image: Image.Image) -> None:
    """Refuses invalid pictures (a side of one pixel) and decompression bombs, using only the header."""
    width, height = image.size
    if min(width, height) < 2:
        raise BadImage(f"{width}x{height} pixels: too small, a side must have at least 2")
    if width * height > MAX_PIXELS:
        raise BadImage(f"{width}x{height} pixels: more than the {MAX_PIXELS:,} allowed")


def to_eight_bit(image: Image.Image) -> Image.Image:
    """Any Pillow mode -> "L" or "RGB". 16-bit grey is scaled by 255/65535; transparency is drawn over white."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise BadImage("integer pixels outside 0..65535")
        eight = ((values + 128) // 257).astype(np.uint8)  # round(v / 257), exactly
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):  # of a PNG: the transparent grey value
            eight[values == transparent] = 255
        return Image.fromarray(eight)
    if image.mode == "F":
        raise BadImage("floating-point pixels, whose range is unknown: save 8 or 16 bits")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        colour = image.mode not in ("L", "LA", "La", "1") and is_colour(image)
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB" if colour else "L")
    return image.convert("RGB" if is_colour(image) else "L")


def crop_box(crop: str, width: int, height: int) -> tuple[int, int, int, int]:
    """(left, upper, right, lower) of a published crop.

    center: the largest centred square. center148: CenterCrop(148), as in SDDPM's training on CelebA (half: 74 of
    89x109). ddim64: rows 57:185, columns 25:153 of 178x218, the crop of the DDIM code behind most published CelebA
    statistics (half: rows 28:92, columns 12:76 of 89x109).
    """
    if crop == "ddim64":
        if (width, height) == _CELEBA:
            return 25, 57, 153, 185
        if (width, height) == _CELEBA_HALF:
            return 12, 28, 76, 92
        raise BadImage(f'{width}x{height} pixels: crop "ddim64" needs aligned CelebA faces, 178x218 or 89x109')
    side = min(width, height)
    if crop == "center148":
        side = 74 if (width, height) == _CELEBA_HALF else 148
        if side > min(width, height):
            raise BadImage(f'{width}x{height} pixels: crop "center148" needs 148x148 or CelebA\'s 89x109')
    left, upper = round((width - side) / 2), round((height - side) / 2)  # torchvision's rounding
    return left, upper, left + side, upper + side


def kept_size(image: Image.Image, spec: PixelSpec) -> tuple[int, int]:
    """(width, height) after orientation and crop, before any resize, without decoding the pixels."""
    check_size(image)
    width, height = image.size
    if image.getexif().get(_ORIENTATION) in _SIDEWAYS:
        width, height = height, width
    if spec.crop is None:
        return width, height
    left, upper, right, lower = crop_box(spec.crop, width, height)
    return right - left, lower - upper


def prepare(image: Image.Image, spec: PixelSpec) -> np.ndarray:
    """Decodes one image into uint8 [C, H, W]: EXIF orientation, 8 bits, crop, grey or colour, resize.

    Raises `BadImage`, or whatever Pillow raises for damaged data.
    """
    check_size(image)
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    image = to_eight_bit(image)
    crop = spec.crop or ("center" if spec.image_size and image.width != image.height else None)
    if crop:
        image = image.crop(crop_box(crop, *image.size))
    image = image.convert("L" if spec.channels == 1 else "RGB")
    if spec.image_size and image.size != (spec.image_size, spec.image_size):
        image = image.resize((spec.image_size, spec.image_size), FILTERS[spec.resize])
    pixels = np.asarray(image)
    return pixels[None] if spec.channels == 1 else pixels.transpose(2, 0, 1)


def check_spec(channels: int | None, image_size: int | None, resize: str, crop: str | None) -> None:
    """Raises `UserError` for invalid pixel options."""
    if channels not in (None, 1, 3):
        raise UserError(f"channels must be 1 (grey) or 3 (colour), not {channels!r}")
    if image_size is not None and (type(image_size) is not int or not 2 <= image_size <= 4096):
        raise UserError(f"image_size must be a whole number from 2 to 4096, not {image_size!r}")
    check_choice("resize filter", resize, FILTERS)
    if crop is not None:
        check_choice("crop", crop, CROPS)
