"""Classes of folders: which images belong to which, by what names, and in which order."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from sddpm.data.dataset import ImageDataset

Labels = tuple[np.ndarray | None, tuple[str, ...] | None]


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """To sort by: whole numbers in a name count as numbers, so that 10 comes after 2."""
    parts = re.split(r"([0-9]{1,18})", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part], name


def folder_labels(names: Sequence[str]) -> Labels:
    """Class = index of the image's folder in natural order, when all lie in at least two first-level folders.

    Not for EDM's shards (00000, 00001, ...), which are no classes.
    """
    folders = [name.split("/")[0] if name.count("/") == 1 else None for name in names]
    classes = sorted({str(folder) for folder in folders}, key=natural_key)
    if None in folders or len(classes) < 2 or all(re.fullmatch(r"\d{5}", name) for name in classes):
        return None, None
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index[str(folder)] for folder in folders], np.int64), tuple(classes)


def joined_labels(parts: Sequence[Labels]) -> Labels:
    """Labels of several parts as one: those of class folders by their names, over all parts; those that are numbers
    as they are; None if a part has no labels.

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
        raise ValueError("some of the paths have classes by folder, others by number: give them one after another")
    classes = tuple(sorted({name for names in named for name in names}, key=natural_key))
    places = [np.array([classes.index(name) for name in names]) for names in named]
    return np.concatenate([place[labels] for place, (labels, _) in zip(places, known, strict=True)]), classes


def use_class_order(dataset: "ImageDataset", class_names: Sequence[str] | None) -> None:
    """Number the classes of a data set, in place, as a model does that was trained on the same ones.

    A model keeps the names of its classes in their order, which may be another than today's: folders were sorted as
    text before. Nothing happens to classes of other names, or of none.
    """
    own = dataset.class_names
    if own is None or class_names is None or dataset.labels is None or sorted(own) != sorted(class_names):
        return
    places = torch.tensor([list(class_names).index(name) for name in own])
    dataset.labels, dataset.class_names = places[dataset.labels], tuple(class_names)
