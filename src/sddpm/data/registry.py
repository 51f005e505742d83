"""The data sets known by name, and where each is found. Imports no torch: `sddpm --help` lists this table."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sddpm.choices import nearest
from sddpm.errors import UserError

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
_CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR_FILES = {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"}


@dataclass(frozen=True)
class Entry:
    """One data set of the registry: how to open it and what it is by default."""

    name: str
    build: "Callable[[Request], Source]"
    splits: tuple[str, ...] = ("train",)
    crop: str | None = None

    @property
    def help(self) -> str:
        """One line for `--help`: the builder's docstring."""
        return (self.build.__doc__ or "").split("\n")[0]


DATASETS: dict[str, Entry] = {}


def register(name: str, **options) -> "Callable[[Callable[[Request], Source]], Callable[[Request], Source]]":
    """Adds a builder (Request -> Source) under `name`; `options` are the fields of `Entry`."""

    def add(build: "Callable[[Request], Source]") -> "Callable[[Request], Source]":
        DATASETS[name] = Entry(name, build, **options)
        return build

    return add


@register("digits")
def digits(request: "Request") -> "Source":
    """1,797 handwritten digits of 8x8 from UCI, grey, 10 classes, part of this package."""
    from importlib.resources import files

    import numpy as np

    from sddpm.data.sources import source_of_arrays

    if request.paths:
        raise UserError("digits is part of the package: it takes no path")
    with (files("sddpm.data") / "digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as data:
        images = np.round(data["images"] * (255 / 16)).astype(np.uint8)  # stored as 0..16
        return source_of_arrays(images, data["labels"].astype(np.int64), "digits")


@register("mnist", splits=("train", "test"))
def mnist(request: "Request") -> "Source":
    """60,000 + 10,000 handwritten digits of 28x28, grey, 10 classes: the four idx files, downloadable (12 MB)."""
    places = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/")
    return _idx_source("mnist", "MNIST", request, _MNIST_FILES, places)


@register("fashion-mnist", splits=("train", "test"))
def fashion_mnist(request: "Request") -> "Source":
    """60,000 + 10,000 pieces of clothing of 28x28, grey, 10 classes: the four idx files, downloadable (31 MB)."""
    places = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",)
    source = _idx_source("fashion-mnist", "FashionMNIST", request, _FASHION_FILES, places)
    return replace(source, class_names=_FASHION_CLASSES)


@register("cifar10", splits=("train", "test"))
def cifar10(request: "Request") -> "Source":
    """50,000 + 10,000 small photographs of 32x32, colour, 10 classes: downloadable (170 MB) or zips."""
    from sddpm.data.cifar import open_cifar10
    from sddpm.data.download import cached_folder

    paths = request.paths
    if not paths:
        folder = cached_folder("cifar10", request, _CIFAR_FILES, ("https://www.cs.toronto.edu/~kriz/",))
        paths = (folder / "cifar-10-binary.tar.gz",)
    return replace(open_cifar10(paths, request.split), class_names=_CIFAR_CLASSES)


@register("celeba", crop="center148")
def celeba(request: "Request") -> "Source":
    """Aligned CelebA faces of 178x218 (or 89x109), colour, from a folder or zip; crop center148 (default) or ddim64."""
    return _images_source("celeba", request, "img_align_celeba.zip or its folder, from the CelebA project page")


@register("lsun")
def lsun(request: "Request") -> "Source":
    """LSUN pictures, e.g. bedrooms, colour, from its lmdb, or a folder or zip of images; the centred square of each."""
    return _images_source("lsun", request, "LSUN's lmdb, such as bedroom_train_lmdb, or a folder or zip of its images")


@register("folder")
def folder(request: "Request") -> "Source":
    """Any folder or zip of images, or several; also by giving the path itself as the name."""
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
            raise UserError(f"{name} is read from one folder, not from {len(request.paths)} paths")
        base = request.paths[0]
        layouts = (base, base / name, base / "raw", base / torchvision_name / "raw")
        holders = [path for path in layouts if find_idx(path, f"{prefix}-images-idx3-ubyte")]
        if not holders:
            raise UserError(f"{base} has no {prefix}-images-idx3-ubyte.gz (nor the unpacked file) of {name}")
        found = holders[0]
    images, labels = read_idx_folder(found, prefix)
    return source_of_arrays(images, labels, f"{name}-{request.split}")


def find_dataset(name: str) -> Entry | None:
    """The entry called `name`, whatever its case and hyphens ("Fashion_MNIST", "CIFAR-10"); None if there is none."""
    plain = _plain(name)
    return next((entry for key, entry in DATASETS.items() if _plain(key) == plain), None)


def unknown_dataset(name: str) -> UserError:
    """The error for a name that is neither a data set nor a path, with the nearest name."""
    if os.sep in name or Path(name).suffix:
        return UserError(f"no such folder or zip: {name}")
    near = nearest(name, DATASETS, cutoff=0.5, spelling=_plain)
    hint = "." if near is None else f": did you mean {near}?"
    return UserError(f"unknown data set {name!r}{hint} Known are {', '.join(DATASETS)}, or a path to a folder or zip")


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")
