"""Grids of pictures, panels side by side with titles, strips of the denoising. Pixels are never resampled."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sddpm.errors import UserError

BACKGROUND = (255, 255, 255)
INK = (40, 40, 40)
FONT_SIZE = 14
MARGIN = 6
GRID_CELL, STRIP_CELL = 32, 48  # minimum width of a drawn image in pixels unless a scale is given
GRID_WIDTH = 256  # minimum width of a grid


def image_grid(images: Tensor, columns: int | None = None, scale: int | None = 1, padding: int = 2) -> Image.Image:
    """Images in rows from left to right.

    Args:
        images: uint8 [N, C, H, W], grey (C = 1) or colour (C = 3).
        columns: images per row; by default as square as possible.
        scale: factor by which pixels are enlarged; None: large enough for small images.
        padding: white pixels around each image.

    Raises:
        UserError: no images, or an invalid shape or dtype.
    """
    _check(images)
    count, _, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    scale = scale or max(
        _legible_scale(width, GRID_CELL), _legible_scale(width, (GRID_WIDTH - padding) / columns - padding)
    )
    rows = math.ceil(count / columns)
    canvas = Image.new("RGB", _grid_size(rows, columns, height * scale, width * scale, padding), BACKGROUND)
    for i, image in enumerate(images):
        x, y = _corner(i // columns, i % columns, height * scale, width * scale, padding)
        canvas.paste(_picture(image, scale), (x, y))
    return canvas


def side_by_side(
    panels: Sequence[tuple[str, Tensor]], columns: int | None = None, scale: int | None = None, padding: int = 2
) -> Image.Image:
    """Grids with the same number of columns next to each other, each under its title: samples next to real images, or
    next to the training image nearest to each.

    Args:
        panels: (title, uint8 [N, C, H, W]) from left to right.
        columns, scale, padding: as in `image_grid`.

    Raises:
        UserError: as in `image_grid`.
    """
    font = ImageFont.load_default(size=FONT_SIZE)
    grids = [image_grid(images, columns, scale, padding) for _, images in panels]
    widths = [max(grid.width, math.ceil(font.getlength(title))) for (title, _), grid in zip(panels, grids, strict=True)]
    header = FONT_SIZE + 2 * MARGIN
    size = (sum(widths) + 2 * MARGIN * (len(grids) + 1), header + max(grid.height for grid in grids) + MARGIN)
    canvas = Image.new("RGB", size, BACKGROUND)
    draw, x = ImageDraw.Draw(canvas), 2 * MARGIN
    for (title, _), grid, width in zip(panels, grids, widths, strict=True):
        draw.text((x + width / 2, header / 2), title, INK, font, anchor="mm")
        canvas.paste(grid, (x + (width - grid.width) // 2, header))
        x += width + 2 * MARGIN
    return canvas


def class_rows(images: Tensor, names: Sequence[str], scale: int | None = None, padding: int = 2) -> Image.Image:
    """A row of images for each class, with its name in front.

    Args:
        images: uint8 [N, C, H, W], the same number for each class, ordered by class.
        names: names of the classes.
        scale, padding: as in `image_grid`.

    Raises:
        UserError: as in `image_grid`, or the number of images is not a multiple of the number of names.
    """
    if len(images) % len(names):
        raise UserError(f"{len(images)} images cannot be divided into {len(names)} rows of equal length")
    grid = image_grid(images, len(images) // len(names), scale, padding)
    font = ImageFont.load_default(size=FONT_SIZE)
    left = math.ceil(max(font.getlength(name) for name in names)) + 2 * MARGIN
    canvas = Image.new("RGB", (left + grid.width, grid.height), BACKGROUND)
    canvas.paste(grid, (left, 0))
    draw = ImageDraw.Draw(canvas)
    for i, name in enumerate(names):
        draw.text((left - MARGIN, (i + 0.5) * grid.height / len(names)), name, INK, font, anchor="rm")
    return canvas


def denoising_strip(
    x_t: Tensor, x0: Tensor, timesteps: Sequence[int], scale: int | None = None, padding: int = 2
) -> Image.Image:
    """The denoising from noise to picture, from left to right; each sample has a row for x_t and one for the estimate
    of x_0 made from it.

    Args:
        x_t: uint8 [S, N, C, H, W], at S steps of N samples.
        x0: the estimates, of the same shape.
        timesteps: the S diffusion steps.
        scale, padding: as in `image_grid`.

    Raises:
        UserError: as in `image_grid`.
    """
    moments, samples = x_t.shape[:2]
    pictures = torch.stack([x_t, x0]).permute(2, 0, 1, 3, 4, 5).flatten(0, 2)  # sample, x_t or x0, moment
    grid = image_grid(pictures, moments, scale or _legible_scale(x_t.shape[-1], STRIP_CELL), padding)
    font = ImageFont.load_default(size=FONT_SIZE)
    left, header = math.ceil(font.getlength("x_t")) + 2 * MARGIN, FONT_SIZE + 2 * MARGIN
    canvas = Image.new("RGB", (left + grid.width + MARGIN, header + grid.height + MARGIN), BACKGROUND)
    canvas.paste(grid, (left, header))
    draw = ImageDraw.Draw(canvas)
    row_height, column_width = grid.height / (2 * samples), grid.width / moments
    for i, t in enumerate(timesteps):
        label = f"t = {t}" if i == 0 else str(t)
        draw.text((left + (i + 0.5) * column_width, header / 2), label, INK, font, anchor="mm")
    for i in range(2 * samples):
        draw.text((left / 2, header + (i + 0.5) * row_height), ("x_t", "x_0")[i % 2], INK, font, anchor="mm")
    return canvas


def _legible_scale(width: int, cell: float) -> int:
    return max(1, math.ceil(cell / width))


def _check(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise UserError(f"images must be uint8 [N, C, H, W], not {images.dtype} {list(images.shape)}")
    if len(images) == 0 or images.shape[1] not in (1, 3):
        raise UserError(f"a grid needs images of 1 or 3 channels, not {len(images)} of {images.shape[1]}")


def _picture(image: Tensor, scale: int) -> Image.Image:
    pixels = image.permute(1, 2, 0).expand(-1, -1, 3).cpu().numpy()
    return Image.fromarray(np.ascontiguousarray(pixels.repeat(scale, 0).repeat(scale, 1)))


def _grid_size(rows: int, columns: int, height: int, width: int, padding: int) -> tuple[int, int]:
    return columns * (width + padding) + padding, rows * (height + padding) + padding


def _corner(row: int, column: int, height: int, width: int, padding: int) -> tuple[int, int]:
    return padding + column * (width + padding), padding + row * (height + padding)
