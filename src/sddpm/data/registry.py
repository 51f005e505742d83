"""The data sets known by name, and their sources. Does not import torch: `sddpm --help` lists this table."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sddpm.choices import nearest
from sddpm.errors import UserError
from sddpm.opening.files import user_path
from sddpm.registry import register

if TYPE_CHECKING:
    from sddpm.data.sources import Request, Source

_MNIST_FILES = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
_FASHION_FILES = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
_FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_MNIST_SPLITS = {"train": 60_000, "test": 10_000}
_CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR_FILES = {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"}


@dataclass(frozen=True)
class Entry:
    """One data set: how to open it, and the facts that are known before.

    name: the name of the data set. description: its content and source, in one line.
    build: `Request` -> `Source`; it finds the files, or downloads them (`download.cached_folder`).
    splits: {split: its number of images, None if it depends on the files}.
    channels, image_size: of all its images; None: as in the files.
    classes: the names of the classes, or their number; None: no classes, or as in the files.
    crop: the default crop of its images.
    """

    name: str
    build: "Callable[[Request], Source]"
    description: str = ""
    splits: Mapping[str, int | None] = field(default_factory=lambda: {"train": None})
    channels: int | None = None
    image_size: int | None = None
    classes: int | tuple[str, ...] | None = None
    crop: str | None = None

    @property
    def class_names(self) -> tuple[str, ...] | None:
        return self.classes if isinstance(self.classes, tuple) else None

    @property
    def num_classes(self) -> int | None:
        return len(self.classes) if isinstance(self.classes, tuple) else self.classes

    @property
    def help(self) -> str:
        """One line for help texts and lists: the description and the known facts about the images."""
        numbers = " + ".join(f"{count:,}" for count in self.splits.values() if count is not None)
        size = f"{self.image_size}x{self.image_size}" if self.image_size is not None else ""
        colour = {None: "", 1: "grey", 3: "colour"}.get(self.channels, "")
        classes = f"{self.num_classes} classes" if self.num_classes is not None else ""
        facts = ", ".join(filter(None, (" of ".join(filter(None, (numbers, size))), colour, classes)))
        return f"{self.description}: {facts}." if facts else f"{self.description}."


DATASETS: dict[str, Entry] = {}
SIGNALS = ("signals", "gaussian-process")  # data sets of signals


def register_dataset(
    name: str,
    build: "Callable[[Request], Source]",
    *,
    description: str = "",
    splits: Mapping[str, int | None] | Sequence[str] = ("train",),
    channels: int | None = None,
    image_size: int | None = None,
    classes: int | Sequence[str] | None = None,
    crop: str | None = None,
) -> None:
    """Add a data set: `open_dataset`, configs and the command line can then use its name.

    Args:
        name: a new one, e.g. "kmnist"; upper and lower case and hyphens are ignored.
        build: `sddpm.data.Request` -> `sddpm.data.Source`: the images, with labels if there are any.
            `sddpm.data.source_of_arrays` makes one from arrays.
        description: its content, in one line.
        splits: "train" and, if there is one, "test"; or {split: number of images}.
        channels, image_size: 1 (grey) or 3 (colour), and side in pixels, if the same for all images.
        classes: the names of the classes, in the order of the labels, or their number.
        crop: the default crop of its images, a name of `sddpm.data.pixels.CROPS`.

    Raises:
        UserError: an invalid name, or one that is taken.
    """
    if (taken := find_dataset(name)) is not None:
        raise UserError(f"the dataset {taken.name!r} already exists: register yours under another name")
    entry = Entry(
        name,
        build,
        description or name,
        dict(splits) if isinstance(splits, Mapping) else dict.fromkeys(splits),
        channels,
        image_size,
        classes if classes is None or isinstance(classes, int) else tuple(classes),
        crop,
    )
    register(DATASETS, "dataset", name, entry)


def digits(request: "Request") -> "Source":
    """The 1,797 handwritten digits of UCI."""
    from importlib.resources import files

    import numpy as np

    from sddpm.data.sources import source_of_arrays

    if request.paths:
        raise UserError("digits is part of the package: leave out the path")
    with (files("sddpm.data") / "digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as data:
        images = np.round(data["images"] * (255 / 16)).astype(np.uint8)  # stored as 0..16
        return source_of_arrays(images, data["labels"].astype(np.int64), "digits")


def mnist(request: "Request") -> "Source":
    """MNIST from its four idx files."""
    places = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/")
    return _idx_source("mnist", "MNIST", request, _MNIST_FILES, places)


def fashion_mnist(request: "Request") -> "Source":
    """Fashion-MNIST from its four idx files."""
    places = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",)
    return _idx_source("fashion-mnist", "FashionMNIST", request, _FASHION_FILES, places)


def cifar10(request: "Request") -> "Source":
    """CIFAR-10 from the archive of its binary version, or from zips of images."""
    from sddpm.data.cifar import open_cifar10
    from sddpm.data.download import cached_folder

    paths = request.paths
    if not paths:
        folder = cached_folder("cifar10", request, _CIFAR_FILES, ("https://www.cs.toronto.edu/~kriz/",))
        paths = (folder / "cifar-10-binary.tar.gz",)
    return open_cifar10(paths, request.split)


def celeba(request: "Request") -> "Source":
    """CelebA from a folder or zip."""
    return _images_source("celeba", request, "img_align_celeba.zip or its folder, from the CelebA project page")


def lsun(request: "Request") -> "Source":
    """LSUN from an lmdb, folder or zip."""
    return _images_source("lsun", request, "LSUN's lmdb, such as bedroom_train_lmdb, or a folder or zip of its images")


def folder(request: "Request") -> "Source":
    """Any images; classes are folders."""
    return _images_source("folder", request, "a folder or zip of images", class_folders=True)


def _images_source(name: str, request: "Request", what: str, class_folders: bool = False) -> "Source":
    from sddpm.data.images import open_images

    if not request.paths:
        raise UserError(f"{name} needs `path`: {what}; it cannot be downloaded")
    return open_images(request.paths, class_folders=class_folders)


def _idx_source(
    name: str, torchvision_name: str, request: "Request", files: dict[str, str], places: tuple[str, ...]
) -> "Source":
    from sddpm.data.download import cached_folder
    from sddpm.data.idx import find_idx, read_idx_folder
    from sddpm.data.sources import source_of_arrays

    prefix = "train" if request.split == "train" else "t10k"
    if not request.paths:
        found = cached_folder(name, request, files, places)
    else:
        if len(request.paths) != 1:
            raise UserError(f"{name} needs one folder, not {len(request.paths)} paths")
        base = request.paths[0]
        layouts = (base, base / name, base / "raw", base / torchvision_name / "raw")
        holders = [path for path in layouts if find_idx(path, f"{prefix}-images-idx3-ubyte")]
        if not holders:
            raise UserError(f"{base} has no {prefix}-images-idx3-ubyte.gz (nor the unpacked file) of {name}")
        found = holders[0]
    images, labels = read_idx_folder(found, prefix)
    return source_of_arrays(images, labels, f"{name}-{request.split}")


def find_dataset(name: str) -> Entry | None:
    """The entry with this name, ignoring case and hyphens ("Fashion_MNIST", "CIFAR-10"); None if there is none."""
    plain = _plain(name)
    return next((entry for key, entry in DATASETS.items() if _plain(key) == plain), None)


def named_dataset(source: str) -> tuple[str, bool, str]:
    """(name, whether it is that of a data set, split or "") of images given as a path or as NAME:SPLIT. A path that
    exists has priority."""
    name, _, split = source.partition(":")
    return name, not user_path(source).exists() and find_dataset(name) is not None, split


def unknown_dataset(name: str) -> UserError:
    """The error for a name that is neither a data set nor a path, with the nearest name."""
    if os.sep in name or Path(name).suffix:
        return UserError(f"no such folder or zip: {name}")
    near = nearest(name, (*DATASETS, *SIGNALS), cutoff=0.5, spelling=_plain)
    hint = "." if near is None else f": did you mean {near}?"
    return UserError(
        f"unknown data set {name!r}{hint} The data sets are {', '.join(DATASETS)}, or a path to a folder or zip, and "
        f"of signals {', '.join(SIGNALS)}; sddpm.register_dataset({name!r}, ...) adds it"
    )


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


register_dataset(
    "digits",
    digits,
    description="Handwritten digits from UCI, part of this package",
    splits={"train": 1797},
    channels=1,
    image_size=8,
    classes=10,
)
register_dataset(
    "mnist",
    mnist,
    description="Handwritten digits, downloadable (12 MB)",
    splits=_MNIST_SPLITS,
    channels=1,
    image_size=28,
    classes=10,
)
register_dataset(
    "fashion-mnist",
    fashion_mnist,
    description="Pieces of clothing, downloadable (31 MB)",
    splits=_MNIST_SPLITS,
    channels=1,
    image_size=28,
    classes=_FASHION_CLASSES,
)
register_dataset(
    "cifar10",
    cifar10,
    description="Small photographs, downloadable (170 MB) or zips",
    splits={"train": 50_000, "test": 10_000},
    channels=3,
    image_size=32,
    classes=_CIFAR_CLASSES,
)
register_dataset(
    "celeba",
    celeba,
    description="Aligned CelebA faces of 178x218 or 89x109, a folder or zip; crop center148 (default) or ddim64",
    channels=3,
    crop="center148",
)
register_dataset(
    "lsun",
    lsun,
    description="LSUN pictures, e.g. bedrooms: its lmdb, or a folder or zip; the centred square of each",
    channels=3,
)
register_dataset(
    "folder",
    folder,
    description="Any folder or zip of images, or several; also by giving the path itself as the name",
)
