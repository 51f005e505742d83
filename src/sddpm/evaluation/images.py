"""Images to compare, from any source, identified by their pixels, so that sets can be distinguished and overlaps
found."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sddpm.data import open_dataset
from sddpm.data.dataset import ImageDataset
from sddpm.data.images import EXTENSIONS
from sddpm.data.registry import find_dataset
from sddpm.errors import UserError
from sddpm.evaluation.npz_images import NpzImages
from sddpm.evaluation.shards import Shards
from sddpm.files.scratch import is_abandoned
from sddpm.opening.files import user_path
from sddpm.opening.folders import walk

_MEMORY_LIMIT = 1 << 24  # bytes of decoded pixels; beyond this, images are decoded on demand
_CHUNK = 500


class Images(Protocol):
    """N images uint8 [C, H, W] of one square size, as in `sddpm.data.ImageDataset`."""

    name: str
    channels: int
    image_size: int
    labels: Tensor | None

    def __len__(self) -> int: ...
    def gather(self, indices: Any) -> Tensor: ...


class ShardImages:
    """Images uint8 [N, C, H, W] stored in shards; `labels`: the class of each, LongTensor [N], or None."""

    def __init__(self, name: str, shards: Shards, labels: Tensor | None = None):
        self.name, self.shards, self.labels = name, shards, labels
        self.channels, self.image_size = shards.shape[1], shards.shape[2]

    def __len__(self) -> int:
        return len(self.shards)

    def gather(self, indices: Any) -> Tensor:
        return torch.from_numpy(self.shards[np.asarray(indices)])


@dataclass(frozen=True)
class ImageSet:
    """The first `count` of some images, and their identity."""

    source: Images
    count: int

    @property
    def labels(self) -> np.ndarray | None:
        """The class of each image, int64 [N], if known."""
        return None if self.source.labels is None else self.source.labels[: self.count].numpy()

    def gather(self, indices: Sequence[int] | Tensor) -> Tensor:
        """uint8 [B, C, H, W]."""
        return self.source.gather(indices)

    @cached_property
    def digests(self) -> list[bytes]:
        """A hash of the pixels of each image."""
        found: list[bytes] = []
        for start in range(0, self.count, _CHUNK):
            batch = self.source.gather(list(range(start, min(start + _CHUNK, self.count)))).numpy()
            found += [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in batch]
        return found

    @cached_property
    def identity(self) -> str:
        """A hash of all pixels in order, and of the shape."""
        shape = f"{self.source.channels}x{self.source.image_size}".encode()
        return hashlib.blake2b(shape + b"".join(self.digests), digest_size=16).hexdigest()


def open_images(
    where: str,
    *,
    data: str | None = None,
    split: str = "train",
    image_size: int | None = None,
    channels: int | None = None,
    crop: str | None = None,
    resize: str | None = None,
    limit: int | None = None,
    download: bool = False,
) -> ImageDataset:
    """Images from a data set's name, a folder, a zip or an .npz.

    Args:
        where: the name or path.
        data: folder of a data set that is given by name.
        split: split of a data set.
        image_size: side in pixels to which images are resized.
        channels, crop, resize, limit, download: as in `open_dataset`.

    Raises:
        UserError: as in `open_dataset` and `NpzImages`.
    """
    named = find_dataset(where) is not None
    if Path(where).suffix.lower() == ".npz":
        if not Path(where).is_file():
            raise UserError(f"no such file: {where}")
        images = NpzImages(Path(where))
        if image_size not in (None, images.image_size) or channels not in (None, images.channels):
            raise UserError(
                f"{where}: images in an .npz are not resized or converted: they are "
                f"{_form(images.channels, images.image_size)}"
            )
        return images
    return open_dataset(
        where,
        data if named else None,
        split if named else "train",
        image_size,
        channels,
        resize or "bilinear",
        crop,
        download,
        limit=limit,
        memory_limit=_MEMORY_LIMIT,
    )


def check_alike(samples: tuple[int, int], reference: Images) -> None:
    """Raise `UserError` if the reference has another (channels, image size) than the samples."""
    if samples != (reference.channels, reference.image_size):
        raise UserError(
            f"the samples are {_form(*samples)}, the reference ({reference.name}) "
            f"{_form(reference.channels, reference.image_size)}: make them equal with `image_size` and `channels`"
        )


def _form(channels: int, size: int) -> str:
    return f"{'grey' if channels == 1 else 'colour'} {size}x{size}"


@dataclass(frozen=True)
class Watched:
    """A folder or file that must not change after it was opened."""

    path: Path
    before: list[tuple[str, int, int]]

    @classmethod
    def of(cls, where: str | None) -> "Watched | None":
        """The file or folder at the path `where`, if there is one. Raises `UserError` as `snapshot` does."""
        path = None if where is None else user_path(where)
        return cls(path, snapshot(path)) if path is not None and path.exists() else None

    def refuse_changes(self) -> None:
        """Raise `UserError` if files were added, removed or changed."""
        if (now := snapshot(self.path)) != self.before:
            changed = sorted({name for name, *_ in set(now) ^ set(self.before)})
            raise UserError(
                f"{self.path} was written to during the evaluation ({len(changed)} files changed, such as "
                f"{changed[0]}): wait until it is complete"
            )


def snapshot(path: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of the file at `path`, or of all image files below it.

    Raises:
        UserError: the folder is being written to, as its temporary files show; or a folder inside cannot be read.
    """
    if path.is_file():
        return [(path.name, *_state(path.stat()))]
    found = []
    for folder, folders, names in walk(path):
        inside = folder.relative_to(path)
        for name in (*folders, *names):
            if name.startswith(".") and ".png." in name and not is_abandoned(folder / name):
                raise UserError(
                    f"{path} is being written to ({inside / name}): wait until it is complete, or delete "
                    f"{folder / name} if nothing writes there"
                )
        for name in names:
            if os.path.splitext(name)[1].lower() in EXTENSIONS:
                with suppress(FileNotFoundError):  # deleted in the meantime; the next snapshot will show it
                    found.append((str(inside / name), *_state((folder / name).stat())))
    return sorted(found)


def _state(found: os.stat_result) -> tuple[int, int]:
    return found.st_size, found.st_mtime_ns
