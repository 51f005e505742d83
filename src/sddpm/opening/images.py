"""Images: in the formats of pictures only, whatever a file is called, and no larger than pictures are."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from sddpm.errors import UserError, reason
from sddpm.opening.files import MIB, read_bytes

# Pillow formats tried, whatever the file is called; others (EPS, for one, starts Ghostscript) are left alone.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MOST_BYTES, MOST_PIXELS = 64 * MIB, 50_000_000


def decode_image(content: bytes) -> Image.Image:
    """An image whose header has been read and whose pixels are decoded on use. Raises anything for a damaged one."""
    return Image.open(io.BytesIO(content), formats=FORMATS)


@contextmanager
def open_image(path: str | os.PathLike[str], what: str = "image") -> Iterator[Image.Image]:
    """The image in a file; what fails inside the block because of it is its fault too.

    Raises:
        UserError: no file, one too large, no image of a known format, or a damaged one.
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
    except Exception as error:  # Pillow raises many kinds for damaged files
        why = reason(error)
        why = "not an image of a known format" if why.startswith("cannot identify") else why
        raise UserError(f"{path} is no image that can be read: {why}") from error
