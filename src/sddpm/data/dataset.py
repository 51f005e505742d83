"""Data sets ready for training: uint8 [C, H, W] images by index, in memory or decoded when asked for."""

import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sddpm.data.pixels import PixelSpec, check_size, is_colour, kept_size, prepare
from sddpm.data.sources import Source, describe
from sddpm.errors import UserError

log = logging.getLogger(__name__)
_WORKERS = min(8, os.cpu_count() or 1)  # Pillow decodes without the interpreter lock
_TASK = 64  # images a task: enough that handing it to a thread costs nothing

Indices = Sequence[int] | Tensor


class ImageDataset(torch.utils.data.Dataset):
    """N images of one size and colour, uint8 [C, H, W].

    `channels` 1 or 3; `image_size` the side in pixels; `names` one a image; `labels` int64 [N] or None;
    `skipped` the (name, reason) of images that could not be used. Also works as a dataset of `torch.utils.data`.
    """

    def __init__(self, name: str, names: list[str], labels: np.ndarray | None, skipped: list[tuple[str, str]]):
        self.name = name
        self.names = names
        self.labels = None if labels is None else torch.from_numpy(np.array(labels, np.int64))
        self.skipped = skipped
        self.channels = 0
        self.image_size = 0

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tensor:
        """Image `index`, uint8 [C, H, W]; IndexError beyond the end."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return self.gather([index % len(self)])[0]

    def gather(self, indices: Indices) -> Tensor:
        """The images at `indices` (LongTensor [B] or a list, each 0 <= i < N), uint8 [B, C, H, W]."""
        raise NotImplementedError


class MemoryDataset(ImageDataset):
    """All pixels decoded, in `images` uint8 [N, C, H, W]."""

    def __init__(self, name: str, source: Source, images: np.ndarray):
        super().__init__(name, source.names, source.labels, source.skipped)
        self.images = torch.from_numpy(images)
        self.channels, self.image_size = images.shape[1], images.shape[2]

    def gather(self, indices: Indices) -> Tensor:
        return self.images[torch.as_tensor(indices, dtype=torch.long)]


class LazyDataset(ImageDataset):
    """Images too large to hold together, decoded by a thread pool whenever they are asked for.

    A damaged image is only met when it is read: it is then added to `skipped`, named in one warning, and the next
    readable image (and its label) takes its place from there on.
    """

    def __init__(self, name: str, source: Source, spec: PixelSpec, size: int):
        super().__init__(name, source.names, source.labels, source.skipped)
        self.channels, self.image_size = spec.channels, size
        self._source, self._spec = source, spec
        self._damaged: set[int] = set()
        self._replaced: dict[int, int] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="sddpm-decode")

    def gather(self, indices: Indices) -> Tensor:
        wanted = torch.as_tensor(indices, dtype=torch.long).tolist()
        out = np.empty((len(wanted), self.channels, self.image_size, self.image_size), np.uint8)

        def fill(row: int) -> None:
            out[row] = self._readable(wanted[row] % len(self))

        for _ in self._pool.map(fill, range(len(wanted))):
            pass
        return torch.from_numpy(out)

    def _readable(self, index: int) -> np.ndarray:
        index = self._replaced.get(index, index)
        for i in chain(range(index, len(self)), range(index)):
            if i in self._damaged:
                continue
            try:
                pixels = _decode(self._source, i, self._spec, self.image_size)
            except (UserError, MemoryError):
                raise
            except Exception as error:  # Pillow raises many kinds for damaged files
                self._skip(i, _reason(error))
                continue
            if i != index:
                self._replaced[index] = i
                if self.labels is not None:
                    self.labels[index] = self.labels[i]
            return pixels
        raise UserError(_none_left(self.name, self.skipped))

    def _skip(self, i: int, why: str) -> None:
        with self._lock:  # two threads may meet the same image at once: it is reported once
            if i not in self._damaged:
                self._damaged.add(i)
                self.skipped.append((self.names[i], why))
                log.warning("%s: %s skipped (%s), the next image takes its place", self.name, self.names[i], why)


def build_dataset(
    name: str, source: Source, spec: PixelSpec, *, any_channels: bool, limit: int | None, memory_limit: int
) -> ImageDataset:
    """Decodes `source` into memory if its decoded pixels take at most `memory_limit` bytes, else on demand.

    `any_channels`: one channel if every image is grey, three otherwise. `limit`: the first so many images only.
    Raises `UserError` if no image is usable or, with `spec.image_size` None, if the sizes differ or are not square.
    """
    source = source.first(limit)
    if any_channels:
        spec = replace(spec, channels=_stored_channels(source))
    size = spec.image_size or _first_size(name, source, spec)
    if len(source) * spec.channels * size * size > memory_limit:
        if spec.image_size is None:
            _check_sizes(source, spec, size)
        if source.skipped:
            log.warning("%s: %d images skipped: %s", name, len(source.skipped), describe(source.skipped))
        dataset: ImageDataset = LazyDataset(name, source, spec, size)
        dataset.gather([0])  # so that a data set without one readable image fails here
    else:
        images, source = _decode_all(name, source, spec, size)
        dataset = MemoryDataset(name, source, images)
    return dataset


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if text.startswith("cannot identify image file"):
        return "not an image"
    return text or type(error).__name__


def _decode(source: Source, i: int, spec: PixelSpec, size: int) -> np.ndarray:
    with source.read(i) as image:
        pixels = prepare(image, spec)
    if pixels.shape[1:] != (size, size):
        raise UserError(_size_message(source.names[i], pixels.shape[2], pixels.shape[1], size))
    return pixels


def _size_message(name: str, width: int, height: int, size: int) -> str:
    return f"{name} has {width}x{height} pixels, the first image {size}x{size}: give an image_size to bring all to one"


def _walk(source: Source, step: Callable[[Source, int], bool]) -> bool:
    """Whether `step` is true for any image; damaged ones are passed over, they are reported when decoded."""
    for i in range(len(source)):
        try:
            if step(source, i):
                return True
        except UserError:
            raise
        except Exception:
            continue
    return False


def _stored_channels(source: Source) -> int:
    if source.arrays is not None:
        return 1 if source.arrays.ndim == 3 else 3

    def colour(source: Source, i: int) -> bool:
        with source.read(i) as image:
            check_size(image)
            return is_colour(image)

    return 3 if _walk(source, colour) else 1


def _first_size(name: str, source: Source, spec: PixelSpec) -> int:
    """Side of the first readable image as it will be kept."""
    failed: list[tuple[str, str]] = []
    for i in range(len(source)):
        try:
            with source.read(i) as image:
                height, width = prepare(image, spec).shape[1:]
        except Exception as error:
            failed.append((source.names[i], _reason(error)))
            continue
        if width != height:
            raise UserError(
                f"{source.names[i]} has {width}x{height} pixels: give an image_size, or a crop, for squares"
            )
        return width
    raise UserError(_none_left(name, failed))


def _check_sizes(source: Source, spec: PixelSpec, size: int) -> None:
    def check(source: Source, i: int) -> bool:
        with source.read(i) as image:
            width, height = kept_size(image, spec)
        if (width, height) != (size, size):
            raise UserError(_size_message(source.names[i], width, height, size))
        return False

    _walk(source, check)


def _decode_all(name: str, source: Source, spec: PixelSpec, size: int) -> tuple[np.ndarray, Source]:
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
                out[i] = _decode(source, i, spec, size)
            except (UserError, MemoryError):
                raise
            except Exception as error:  # Pillow raises many kinds for damaged files
                failed[i] = _reason(error)
        return stop - start

    _run(fill, range(0, len(source), _TASK), total=len(source), title=f"decoding {name}")
    skipped = source.skipped + [(source.names[i], failed[i]) for i in sorted(failed)]
    if len(failed) == len(source):
        raise UserError(_none_left(name, skipped))
    if skipped:
        total = len(source) + len(source.skipped)
        log.warning("%s: %d of %d images skipped: %s", name, len(skipped), total, describe(skipped))
    if not failed:
        return out, replace(source, skipped=skipped)
    keep = np.array([i not in failed for i in range(len(source))])
    names = [name for name, kept in zip(source.names, keep, strict=True) if kept]
    labels = None if source.labels is None else source.labels[keep]
    return out[keep], Source(names, source.read, labels, skipped)


def _run(task: Callable[[int], int], starts: Iterable[int], *, total: int, title: str) -> None:
    """Runs the tasks on threads; a bar appears when they take longer than two seconds. The first error stops all."""
    bar = tqdm(total=total, desc=title, unit=" images", delay=2.0, leave=False)
    with bar, ThreadPoolExecutor(_WORKERS) as pool:
        try:
            for done in pool.map(task, starts):
                bar.update(done)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _none_left(name: str, skipped: list[tuple[str, str]]) -> str:
    return f"none of the {len(skipped)} images of {name} can be used: {describe(skipped)}"
