"""Images: only in common picture formats, whatever the file's name, and of limited size."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from sddpm.errors import UserError, reason
from sddpm.opening.files import MIB, read_bytes

# Pillow formats that are tried, whatever the file's name; others are not used (EPS, for example, runs Ghostscript).
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MOST_BYTES, MOST_PIXELS = 64 * MIB, 50_000_000


def decode_image(content: bytes) -> Image.Image:
    """An image with its header read; pixels are decoded on use. Can raise any exception for a damaged image."""
    return Image.open(io.BytesIO(content), formats=FORMATS)


@contextmanager
def open_image(path: str | os.PathLike[str], what: str = "image") -> Iterator[Image.Image]:
    """The image in a file; errors that its data cause inside the block are reported for the file too.

    Raises:
        UserError: no such file, a too large one, an unknown format, or a damaged image.
    """
    content = read_bytes(path, MOST_BYTES, what)
    try:
        with decode_image(content) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise UserError(f"{path} has {width}x{height} pixels, more than the {MOST_PIXELS:,} allowed")
            yield image
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(f"{path} has more than the {MOST_PIXELS:,} pixels allowed") from error
    except Exception as error:  # Pillow raises many kinds of errors for damaged files
        why = reason(error)
        why = "not an image of a known format" if why.startswith("cannot identify") else why
        raise UserError(f"{path} is not a readable image: {why}") from error
