"""Writes sampled images to a grid, a folder, a zip or an .npz, each file atomically."""

import io
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sddpm.data import unit_to_uint8
from sddpm.errors import UserError
from sddpm.figures.grid import class_rows, image_grid
from sddpm.files import atomic_path
from sddpm.files.names import folder_names
from sddpm.pipelines.wanted import Wanted

Batches = Iterable[tuple[list[int], Tensor]]
MOST_PLOTS = 64  # matplotlib needs minutes for hundreds


def write_images(
    kind: str,
    out: Path,
    batches: Batches,
    columns: int | None = None,
    scale: int | None = 1,
    wanted: Wanted | None = None,
) -> None:
    """Write batches of (seeds, float images [B, C, H, W] in [0, 1]) as they come.

    Args:
        kind: "grid" (PNG), "folder" (SEED.png each), "zip" (the same, packed) or "npz" (arr_0, uint8 [N, H, W, C]).
        out: file or folder. In a folder every finished image is kept, even if the work stops early.
        batches: the batches to write.
        columns, scale: as in `image_grid`.
        wanted: the classes of all images. Several classes become rows of a grid and folders CLASS/SEED.png (as read by
            `open_dataset`); an .npz contains their numbers in arr_1.

    Raises:
        UserError: the output cannot be written, or a folder has images of an earlier call that would stay.
    """
    rows, labels = (wanted.rows, wanted.labels) if wanted is not None else (None, None)
    pixels = ((seeds, unit_to_uint8(images)) for seeds, images in batches)
    named = _named(pixels, rows, 0 if wanted is None else len(wanted.seeds))
    if kind == "folder":
        _refuse_mixture(out, wanted)
        for name, image in named:
            with atomic_path(out / name) as path:
                path.write_bytes(_png(image))
        return
    with atomic_path(out) as path:
        if kind == "zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:  # PNG is already compressed
                for name, image in named:
                    archive.writestr(name, _png(image))
            return
        everything = torch.cat([images for _, images in pixels])
        if kind == "grid" and rows is not None and columns is None:
            class_rows(everything, rows, scale).save(path, "PNG")
        elif kind == "grid":
            image_grid(everything, columns, scale).save(path, "PNG")
        else:
            arrays = [everything.permute(0, 2, 3, 1).numpy()] + ([] if labels is None else [np.array(labels)])
            with path.open("wb") as file:
                np.savez(file, *arrays)


def _refuse_mixture(out: Path, wanted: Wanted | None) -> None:
    """Raise `UserError` if a folder has images, named by seed, that this call does not replace."""
    if wanted is None:
        return
    folders = [""] if wanted.rows is None else [f"{name}/" for name in folder_names(wanted.rows)]
    written = {f"{folder}{seed:06d}.png" for folder in folders for seed in wanted.seeds}
    found = (*out.glob("*.png"), *out.glob("*/*.png"))
    for path in sorted(path for path in found if path.stem.isdecimal()):
        if (name := path.relative_to(out).as_posix()) not in written:
            raise UserError(
                f"{out} has {name} of an earlier call, which would stay: choose another folder, or empty it"
            )


def _named(batches: Batches, rows: list[str] | None, count: int) -> Iterator[tuple[str, Tensor]]:
    """Each image with its file name: SEED.png, in a folder for its class if there are several."""
    folders = None if rows is None else folder_names(rows)
    i = 0
    for seeds, images in batches:
        for seed, image in zip(seeds, images, strict=True):
            folder = "" if folders is None else folders[i * len(folders) // count] + "/"
            yield f"{folder}{seed:06d}.png", image
            i += 1


def _png(image: Tensor) -> bytes:
    array = image.permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(buffer, "PNG")
    return buffer.getvalue()


def plot_beside(out: Path) -> Path:
    """The path for the plot of signals."""
    return out.with_suffix(".png")


def write_signals(out: Path, batches: Batches, columns: int | None, wanted: Wanted) -> None:
    """Write signals [B, C, L] to an .npz (arr_0 float32 [N, C, L], and their classes in arr_1), and a plot of the first
    64 next to it. With several classes each is a row of the plot, with the same number of signals."""
    from sddpm.figures.signals import signal_grid  # matplotlib takes half a second to import

    with atomic_path(out) as path, atomic_path(plot_beside(out)) as plot:
        everything = torch.cat([signals for _, signals in batches]).float()
        arrays = [everything.numpy()] + ([] if wanted.labels is None else [np.array(wanted.labels)])
        with path.open("wb") as file:
            np.savez(file, *arrays)
        rows = 1 if wanted.rows is None else len(wanted.rows)
        shown = everything.unflatten(0, (rows, -1))[:, : max(1, MOST_PLOTS // rows)]
        if columns is None and rows > 1:
            columns = shown.shape[1]
        signal_grid(shown.flatten(0, 1), columns).savefig(plot)
