"""Classes from folders: the class of each image, and the names and order of the classes."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from sddpm.data.dataset import ImageDataset

Labels = tuple[np.ndarray | None, tuple[str, ...] | None]


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key in which whole numbers in a name are compared as numbers, so that 10 comes after 2."""
    parts = re.split(r"([0-9]{1,18})", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part], name


def folder_labels(names: Sequence[str]) -> Labels:
    """Class = index of the image's folder in natural order, if all images are in at least two first-level folders.

    Not for EDM's shards (00000, 00001, ...), which are not classes.
    """
    folders = [name.split("/")[0] if name.count("/") == 1 else None for name in names]
    classes = sorted({str(folder) for folder in folders}, key=natural_key)
    if None in folders or len(classes) < 2 or all(re.fullmatch(r"\d{5}", name) for name in classes):
        return None, None
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index[str(folder)] for folder in folders], np.int64), tuple(classes)


def joined_labels(parts: Sequence[Labels]) -> Labels:
    """Merge the labels of several parts. Labels of class folders are merged by name, over all parts; numeric labels are
    not changed; None if a part has no labels.

    Raises:
        ValueError: some parts name their classes and others number them.
    """
    known = [(labels, names) for labels, names in parts if labels is not None]
    if len(known) < len(parts):
        return None, None
    named = [names for _, names in known if names is not None]
    if not named:
        return np.concatenate([labels for labels, _ in known]), None
    if len(named) < len(known):
        raise ValueError("some of the paths have classes by folder, others by number: use paths of one kind")
    classes = tuple(sorted({name for names in named for name in names}, key=natural_key))
    places = [np.array([classes.index(name) for name in names]) for names in named]
    return np.concatenate([place[labels] for place, (labels, _) in zip(places, known, strict=True)]), classes


def use_class_order(dataset: "ImageDataset", class_names: Sequence[str] | None) -> None:
    """Renumber the classes of a data set, in place, in the order of a model that was trained on the same classes.

    A model stores the names of its classes in order. The order can differ from the current one, because folders used to
    be sorted as text. Nothing happens if the names differ or there are none.
    """
    own = dataset.class_names
    if own is None or class_names is None or dataset.labels is None or sorted(own) != sorted(class_names):
        return
    places = torch.tensor([list(class_names).index(name) for name in own])
    dataset.labels, dataset.class_names = places[dataset.labels], tuple(class_names)
