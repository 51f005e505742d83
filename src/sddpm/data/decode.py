"""Decoding of a `Source`: one image, or all on threads, and the checks before it."""

import logging
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from sddpm.data.pixels import PixelSpec, check_size, is_colour, kept_size, prepare
from sddpm.data.sources import Source, describe
from sddpm.errors import UserError

log = logging.getLogger(__name__)
WORKERS = min(8, os.cpu_count() or 1)  # Pillow decodes without the interpreter lock
_TASK = 64  # images per task: enough to make the cost of threads negligible


def reason(error: Exception) -> str:
    """The reason of an image's failure, in one line."""
    text = " ".join(str(error).split())
    if text.startswith("cannot identify image file"):
        return "not an image"
    return text or type(error).__name__


def decode_one(source: Source, i: int, spec: PixelSpec, size: int) -> np.ndarray:
    """Image i, uint8 [C, size, size]. Raises `UserError` for another size, and anything for a damaged image."""
    with source.read(i) as image:
        pixels = prepare(image, spec)
    if pixels.shape[1:] != (size, size):
        raise UserError(_size_message(source.names[i], pixels.shape[2], pixels.shape[1], size))
    return pixels


def _size_message(name: str, width: int, height: int, size: int) -> str:
    return f"{name} has {width}x{height} pixels, the first image {size}x{size}: give an image_size to resize all"


def _walk(source: Source, step: Callable[[Source, int], bool]) -> bool:
    """Whether `step` is true for any image; damaged ones are skipped here and reported when decoded."""
    for i in range(len(source)):
        try:
            if step(source, i):
                return True
        except UserError:
            raise
        except Exception:
            continue
    return False


def stored_channels(source: Source) -> int:
    """1 if every readable image is stored grey, else 3. For colour data the first image is enough."""
    if source.arrays is not None:
        return 1 if source.arrays.ndim == 3 else 3

    def colour(source: Source, i: int) -> bool:
        with source.read(i) as image:
            check_size(image)
            return is_colour(image)

    return 3 if _walk(source, colour) else 1


def first_size(name: str, source: Source, spec: PixelSpec) -> int:
    """Side of the first readable image after preparation."""
    failed: list[tuple[str, str]] = []
    for i in range(len(source)):
        try:
            with source.read(i) as image:
                height, width = prepare(image, spec).shape[1:]
        except Exception as error:
            failed.append((source.names[i], reason(error)))
            continue
        if width != height:
            raise UserError(
                f"{source.names[i]} has {width}x{height} pixels, which is not square: give an image_size or a crop"
            )
        return width
    raise UserError(none_left(name, failed))


def check_sizes(source: Source, spec: PixelSpec, size: int) -> None:
    """Raises `UserError` if an image, according to its header, will not have [size, size] after preparation."""

    def check(source: Source, i: int) -> bool:
        with source.read(i) as image:
            width, height = kept_size(image, spec)
        if (width, height) != (size, size):
            raise UserError(_size_message(source.names[i], width, height, size))
        return False

    _walk(source, check)


def decode_all(name: str, source: Source, spec: PixelSpec, size: int) -> tuple[np.ndarray, Source]:
    """All usable images, uint8 [N, C, size, size], and the source without the others."""
    arrays = source.arrays
    if arrays is not None and spec.crop is None and arrays.shape[1:] == (size, size, 3)[: arrays.ndim - 1]:
        stored = arrays[:, None] if arrays.ndim == 3 else arrays.transpose(0, 3, 1, 2)
        if stored.shape[1] == spec.channels:
            return np.array(stored, order="C"), source
    out = np.empty((len(source), spec.channels, size, size), np.uint8)
    failed: dict[int, str] = {}

    def fill(start: int) -> int:
        stop = min(start + _TASK, len(source))
        for i in range(start, stop):
            try:
                out[i] = decode_one(source, i, spec, size)
            except (UserError, MemoryError):
                raise
            except Exception as error:  # Pillow raises many kinds of errors for damaged files
                failed[i] = reason(error)
        return stop - start

    _run(fill, range(0, len(source), _TASK), total=len(source), title=f"decoding {name}")
    skipped = source.skipped + [(source.names[i], failed[i]) for i in sorted(failed)]
    if len(failed) == len(source):
        raise UserError(none_left(name, skipped))
    if skipped:
        total = len(source) + len(source.skipped)
        log.warning("%s: %d of %d images skipped: %s", name, len(skipped), total, describe(skipped))
    if not failed:
        return out, replace(source, skipped=skipped)
    keep = np.array([i not in failed for i in range(len(source))])
    names = [name for name, kept in zip(source.names, keep, strict=True) if kept]
    labels = None if source.labels is None else source.labels[keep]
    return out[keep], replace(source, names=names, labels=labels, skipped=skipped, arrays=None)


def _run(task: Callable[[int], int], starts: Iterable[int], *, total: int, title: str) -> None:
    """Runs the tasks on threads; a progress bar appears after two seconds. The first error stops all."""
    bar = tqdm(total=total, desc=title, unit=" images", delay=2.0, leave=False)
    with bar, ThreadPoolExecutor(WORKERS) as pool:
        try:
            for done in pool.map(task, starts):
                bar.update(done)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def none_left(name: str, skipped: list[tuple[str, str]]) -> str:
    """The message for a data set without usable images."""
    return f"none of the {len(skipped)} images of {name} can be used: {describe(skipped)}"
