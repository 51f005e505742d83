"""Data sets ready for training: uint8 [C, H, W] images by index, in memory or decoded on demand."""

import logging
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from sddpm.data.decode import (
    WORKERS,
    check_sizes,
    decode_all,
    decode_one,
    first_size,
    none_left,
    reason,
    stored_channels,
)
from sddpm.data.pixels import PixelSpec
from sddpm.data.sources import Source, describe
from sddpm.errors import UserError

log = logging.getLogger(__name__)

Indices = Sequence[int] | Tensor
NO_WORKERS = "{} is decoded on its own threads: use num_workers=0 in its DataLoader"


class ImageDataset(ABC):
    """N images of one size and colour, uint8 [C, H, W].

    `channels` 1 or 3; `image_size` the side in pixels; `names` one for each image; `labels` int64 [N] or None;
    `class_names` one for each class, or None if they have no names; `label_problem` why existing labels cannot be used;
    `skipped` the (name, reason) of unusable images. Batches come from `gather` or `iterate_batches`, which decode on
    threads; a DataLoader around it must not have worker processes.
    """

    def __init__(
        self,
        name: str,
        names: list[str],
        labels: np.ndarray | None,
        skipped: list[tuple[str, str]],
        class_names: tuple[str, ...] | None = None,
    ):
        self.name = name
        self.names = names
        self.labels = None if labels is None else torch.from_numpy(np.array(labels, np.int64))
        self.class_names = class_names
        self.label_problem: str | None = None
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

    @abstractmethod
    def gather(self, indices: Indices) -> Tensor:
        """The images at `indices` (LongTensor [B] or a list, each 0 <= i < N), uint8 [B, C, H, W]."""


class MemoryDataset(ImageDataset):
    """Images in memory, decoded, in `images` uint8 [N, C, H, W]."""

    def __init__(self, name: str, source: Source, images: np.ndarray):
        super().__init__(name, source.names, source.labels, source.skipped, source.class_names)
        self.images = torch.from_numpy(images)
        self.channels, self.image_size = images.shape[1], images.shape[2]

    def gather(self, indices: Indices) -> Tensor:
        return self.images[torch.as_tensor(indices, dtype=torch.long)]


class LazyDataset(ImageDataset):
    """Images that are too large to keep in memory, decoded on demand by a thread pool.

    A damaged image is only found when it is read. It is then added to `skipped` and named in one warning; from then on
    the next readable image (and its label) replaces it.
    """

    def __init__(self, name: str, source: Source, spec: PixelSpec, size: int):
        super().__init__(name, source.names, source.labels, source.skipped, source.class_names)
        self.channels, self.image_size = spec.channels, size
        self._source, self._spec = source, spec
        self._damaged: set[int] = set()
        self._replaced: dict[int, int] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="sddpm-decode")
        self._process = os.getpid()  # threads, and positions in open archives, do not survive a fork

    def __reduce__(self) -> NoReturn:
        raise UserError(NO_WORKERS.format(self.name))

    def gather(self, indices: Indices) -> Tensor:
        if os.getpid() != self._process:
            raise UserError(NO_WORKERS.format(self.name))
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
                pixels = decode_one(self._source, i, self._spec, self.image_size)
            except (UserError, MemoryError):
                raise
            except Exception as error:  # Pillow raises many kinds of errors for damaged files
                self._skip(i, reason(error))
                continue
            if i != index:
                self._replaced[index] = i
                if self.labels is not None:
                    self.labels[index] = self.labels[i]
            return pixels
        raise UserError(none_left(self.name, self.skipped))

    def _skip(self, i: int, why: str) -> None:
        with self._lock:  # two threads may find the same image at the same time: it is reported once
            if i not in self._damaged:
                self._damaged.add(i)
                self.skipped.append((self.names[i], why))
                log.warning("%s: %s skipped (%s), the next image replaces it", self.name, self.names[i], why)


def build_dataset(
    name: str, source: Source, spec: PixelSpec, *, any_channels: bool, limit: int | None, memory_limit: int
) -> ImageDataset:
    """Decodes `source` into memory if its decoded pixels take at most `memory_limit` bytes, else on demand.

    `any_channels`: one channel if every image is grey, three otherwise. `limit`: only the first so many images.
    Raises `UserError` if no image is usable or, with `spec.image_size` None, if the sizes differ or are not square.
    """
    source = source.first(limit)
    if any_channels:
        spec = replace(spec, channels=stored_channels(source))
    size = spec.image_size or first_size(name, source, spec)
    if len(source) * spec.channels * size * size > memory_limit:
        if spec.image_size is None:
            check_sizes(source, spec, size)
        if source.skipped:
            log.warning("%s: %d images skipped: %s", name, len(source.skipped), describe(source.skipped))
        dataset: ImageDataset = LazyDataset(name, source, spec, size)
        dataset.gather([0])  # so that a data set without readable images fails here
    else:
        images, source = decode_all(name, source, spec, size)
        if any_channels and spec.channels == 3 and all((image[:1] == image[1:]).all() for image in images):
            log.warning(
                "%s: every image is grey, although stored in colour: channels=1 needs a third of the data", name
            )
        dataset = MemoryDataset(name, source, images)
    dataset.label_problem = source.label_problem
    return dataset
