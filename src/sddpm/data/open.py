"""Opens every kind of data set: `open_dataset`."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sddpm.data.config import DataConfig
from sddpm.data.dataset import ImageDataset, build_dataset
from sddpm.data.download import default_cache
from sddpm.data.pixels import PixelSpec, check_spec
from sddpm.data.registry import DATASETS, SIGNALS, Entry, find_dataset, unknown_dataset
from sddpm.data.signals import open_signals
from sddpm.data.sources import Request, Source
from sddpm.errors import UserError
from sddpm.opening.files import user_path

PathLike = str | os.PathLike[str]


def open_dataset(
    name: PathLike | Sequence[PathLike],
    path: PathLike | Sequence[PathLike] | None = None,
    split: str = "train",
    image_size: int | None = None,
    channels: int | None = None,
    resize: str = "bilinear",
    crop: str | None = None,
    download: bool = False,
    cache_dir: PathLike | None = None,
    limit: int | None = None,
    *,
    memory_limit: int = 4 << 30,
    base_url: str | None = None,
) -> ImageDataset:
    """Opens a data set as uint8 images [C, H, W] of one size and colour, or as signals [C, L].

    name: a name of `DATASETS` ("digits", "mnist", "fashion-mnist", "cifar10", "celeba", "lsun", "folder", in any
        case), or the path of a folder or zip of images, or several (a list, or separated by commas); "signals" or
        "gaussian-process", which use only `path` and `limit` (`open_signals`).
    path: the location of the data: a folder with the original files, or a folder or zip of images, or several. None:
    the
        data are bundled, already downloaded, or downloaded now.
    split: "train" or "test", for data sets that have both.
    image_size: side in pixels to resize to, by Pillow's filter `resize` (nearest, box, bilinear, bicubic, lanczos)
        on the uint8 image. Images that are not square are first cropped to their centred square. None: as stored.
    channels: 1 grey, 3 colour, None as stored (grey only if every image is).
    crop: "center" (largest centred square), "center148" (CelebA as in SDDPM's training, and celeba's default) or
        "ddim64" (CelebA as in most published statistics), before the resize.
    download: allow downloading the official files into `cache_dir` (default: SDDPM_CACHE, else the user's cache
    folder). limit: only the first so many images.
    memory_limit: maximum bytes of decoded pixels to keep in memory; larger data sets are decoded on demand.
    base_url: download from BASE_URL/<data set>/<file> instead of the official places (default: SDDPM_DATA_URL).

    Images are rotated according to their EXIF orientation, 16-bit grey is scaled to 8 bits, transparency is drawn over
    white. Damaged images are left out, and named in `.skipped` and in one warning.
    Raises `UserError` if the name, the path, an option or all images are invalid.
    """
    check_spec(channels, image_size, resize, crop)
    if limit is not None and (type(limit) is not int or limit < 1):
        raise UserError(f"limit must be a positive whole number, not {limit!r}")
    if name in SIGNALS:
        return open_signals(str(name), _only(path), limit)
    entry = find_dataset(name) if isinstance(name, str) else None
    if entry is not None:
        title, paths = entry.name, _existing(path) if path is not None else ()
    elif path is not None:
        raise unknown_dataset(str(name))
    else:
        entry, paths = DATASETS["folder"], _existing(name, or_name=True)
        title = ",".join(each.resolve().name for each in paths)
    if split not in entry.splits:
        raise UserError(f"{title} has no split {split!r}: choose {' or '.join(entry.splits)}")
    cache = user_path(cache_dir) if cache_dir is not None else default_cache()
    source = entry.build(Request(paths, split, download, cache, base_url or os.environ.get("SDDPM_DATA_URL")))
    source = _with_classes(source, entry)
    return build_dataset(
        title,
        source,
        PixelSpec(channels or 3, image_size, resize, crop or entry.crop),
        any_channels=channels is None,
        limit=limit,
        memory_limit=memory_limit,
    )


def open_configured(config: DataConfig) -> ImageDataset:
    """The data set of a config, as opened by `open_dataset` (`flip` is applied in training). Raises `UserError`."""
    return open_dataset(config.dataset, config.path, **config.model_dump(exclude={"dataset", "path", "flip"}))


def _with_classes(source: Source, entry: Entry) -> Source:
    """The images with the names of their classes, if the data set has them."""
    if source.labels is None or entry.num_classes is None or len(source.labels) == 0:
        return source
    if (last := int(source.labels.max())) >= entry.num_classes or int(source.labels.min()) < 0:
        raise UserError(f"{entry.name} has {entry.num_classes} classes, but an image has class {last}")
    return source if source.class_names is not None else replace(source, class_names=entry.class_names)


def _only(path: PathLike | Sequence[PathLike] | None) -> str | None:
    """The path of signals, which have at most one."""
    if path is not None and not isinstance(path, (str, os.PathLike)):
        raise UserError(f"signals need one file, not {len(path)} paths")
    return None if path is None else os.fspath(path)


def _existing(given: PathLike | Sequence[PathLike], or_name: bool = False) -> tuple[Path, ...]:
    """The given paths: one, a list, or one string with commas. `or_name`: a name of a data set was also possible."""
    if isinstance(given, (str, os.PathLike)):
        text = os.fspath(given)
        pieces: list[str] = [text] if os.path.exists(text) else [piece.strip() for piece in text.split(",")]
    else:
        pieces = [os.fspath(piece) for piece in given]
    paths = tuple(user_path(piece) for piece in pieces)
    if not paths:
        raise UserError("no folder or zip given")
    for piece, path in zip(pieces, paths, strict=True):
        if not piece or not path.exists():
            raise unknown_dataset(piece) if or_name else UserError(f"no such folder or file: {piece}")
    return paths
