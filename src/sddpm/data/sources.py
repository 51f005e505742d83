"""The result of every format reader: images in their stored form, before conversion to one size and colour."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

MIB = 1 << 20


@dataclass(frozen=True)
class Request:
    """The user's request, from which the builders of the registry make a `Source`."""

    paths: tuple[Path, ...] = ()
    split: str = "train"
    download: bool = False
    cache_dir: Path = Path()
    base_url: str | None = None


@dataclass
class Source:
    """N images in their stored form.

    `read(i)` opens image i as a Pillow image (for files only the header; the pixels are decoded on use) and can raise
    any exception for a damaged image. `arrays` is set if all pixels are already in memory: uint8 [N, H, W] or [N, H, W,
    3]. `skipped` lists (name, reason) of the refused images. `class_names`: one for each class, if the classes have
    names. `label_problem`: why existing labels cannot be used.
    """

    names: list[str]
    read: Callable[[int], Image.Image]
    labels: np.ndarray | None = None
    skipped: list[tuple[str, str]] = field(default_factory=list)
    arrays: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    label_problem: str | None = None

    def __len__(self) -> int:
        return len(self.names)

    def first(self, limit: int | None) -> "Source":
        """The first `limit` images, in order (None: all)."""
        if limit is None or limit >= len(self):
            return self
        return replace(
            self,
            names=self.names[:limit],
            labels=None if self.labels is None else self.labels[:limit],
            arrays=None if self.arrays is None else self.arrays[:limit],
        )


def describe(skipped: Sequence[tuple[str, str]], most: int = 3) -> str:
    """'a.png (truncated), b.png (...), ...': the first few skipped images, for one-line messages."""
    return ", ".join(f"{name} ({why})" for name, why in skipped[:most]) + (", ..." if len(skipped) > most else "")


def source_of_arrays(images: np.ndarray, labels: np.ndarray | None, name: str) -> Source:
    """Wraps decoded images, uint8 [N, H, W] or [N, H, W, 3]; they are named ``name/00000``, ``name/00001``, ..."""
    names = [f"{name}/{i:05d}" for i in range(len(images))]
    return Source(names, lambda i: Image.fromarray(images[i]), labels, arrays=images)
