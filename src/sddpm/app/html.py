"""HTML parts of the page: pictures, the progress line, commands to copy."""

import base64
import io
from collections.abc import Sequence
from html import escape

from PIL import Image
from torch import Tensor

LONGEST_LINE = 300


def png_url(picture: Image.Image) -> str:
    """A picture as a data: URL."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def pixels(image: Tensor) -> Image.Image:
    """uint8 [C, H, W] as a picture with the same pixels."""
    array = image.permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def empty(text: str) -> str:
    """The placeholder for a result that does not exist yet."""
    return f'<div class="empty"><p>{escape(text)}</p></div>'


def gallery(pictures: Tensor, captions: Sequence[str]) -> str:
    """uint8 [N, C, H, W] as pictures next to each other, each with its caption."""
    cells = (
        f'<figure><img src="{png_url(pixels(picture))}" alt="Picture of {escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for picture, caption in zip(pictures, captions, strict=True)
    )
    size = "large" if len(captions) <= 4 else "small"
    return f'<div class="gallery {size}">{"".join(cells)}</div>'


def save_link(picture: Image.Image, name: str, text: str = "Save as PNG") -> str:
    """A link that saves a picture."""
    return f'<a class="save" download="{escape(name)}" href="{png_url(picture)}">{escape(text)}</a>'


def status(text: str, done: int = 0, total: int = 0, *, failed: bool = False) -> str:
    """The line under the buttons, with a progress bar while work is running."""
    text = text if len(text) <= LONGEST_LINE else text[: LONGEST_LINE - 3] + "..."
    bar = f'<progress max="{total}" value="{done}" aria-label="Progress"></progress>' if total else ""
    return f'<div class="status{" failed" if failed else ""}" role="status">{bar}<p>{escape(text)}</p></div>'


def several(count: int, what: str) -> str:
    """A count with its noun, such as "1 picture" or "2 pictures"."""
    return f"{count} {what}{'' if count == 1 else 's'}"
