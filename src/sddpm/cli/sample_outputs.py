"""Where sampled images go: a grid, a folder, a zip or an .npz, each file whole or not at all."""

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sddpm.data import unit_to_uint8
from sddpm.figures.grid import image_grid
from sddpm.files import atomic_path

Batches = Iterable[tuple[list[int], Tensor]]


def write_images(kind: str, out: Path, batches: Batches, columns: int | None = None, scale: int | None = 1) -> None:
    """Write batches of (seeds, float images [B, C, H, W] in [0, 1]) as they come.

    Args:
        kind: "grid" (PNG), "folder" (SEED.png each), "zip" (the same, packed) or "npz" (arr_0, uint8 [N, H, W, C]).
        out: file or folder. In a folder every finished image stays, also if the work stops on the way.
        batches: what to write.
        columns, scale: as of `image_grid`.

    Raises:
        UserError: what cannot be written.
    """
    pixels = ((seeds, unit_to_uint8(images)) for seeds, images in batches)
    if kind == "folder":
        for seeds, images in pixels:
            for seed, image in zip(seeds, images, strict=True):
                with atomic_path(out / _name(seed)) as path:
                    path.write_bytes(_png(image))
        return
    with atomic_path(out) as path:
        if kind == "zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:  # PNG is compressed already
                for seeds, images in pixels:
                    for seed, image in zip(seeds, images, strict=True):
                        archive.writestr(_name(seed), _png(image))
            return
        everything = torch.cat([images for _, images in pixels])
        if kind == "grid":
            image_grid(everything, columns, scale).save(path, "PNG")
        else:
            with path.open("wb") as file:
                np.savez(file, everything.permute(0, 2, 3, 1).numpy())


def _name(seed: int) -> str:
    return f"{seed:06d}.png"


def _png(image: Tensor) -> bytes:
    array = image.permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(buffer, "PNG")
    return buffer.getvalue()
