"""Checks of numeric options before work begins."""

import math

from sddpm.errors import UserError

MOST_SAMPLES = 1_000_000  # of one command: their seeds, and lists of images, are kept in memory
MOST_SCALE = 64
MOST_GRID_PIXELS = 2**28  # of one picture


def check_range(option: str, value: float | None, least: float, most: float = math.inf) -> None:
    """Raise `UserError` unless the value of an option is a finite number from `least` to `most`; None is accepted."""
    if value is None:
        return
    if not (math.isfinite(value) and least <= value <= most):
        limits = f"at least {least:,}" + (f" and at most {most:,}" if most < math.inf else "")
        raise UserError(f"{option} must be {limits}, not {value}")


def check_grid(count: int, size: int, scale: int | None) -> None:
    """Raise `UserError` if a picture of `count` images with `size` pixels per side would be too large."""
    if count * ((size + 2) * (scale or 1)) ** 2 > MOST_GRID_PIXELS:
        raise UserError(
            f"a picture of {count:,} images of {size}x{size} pixels is too large: write a folder, .zip or .npz,"
            " or use fewer images or a smaller --scale"
        )
