"""Images of a class: names of classes, and classifier-free guidance towards a class."""

import hashlib
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sddpm.choices import did_you_mean
from sddpm.errors import UserError

ClassLabel = int | str
ClassLabels = ClassLabel | Sequence[ClassLabel] | Tensor | np.ndarray | None
NO_CLASS, RANDOM = "none", "random"


@dataclass(frozen=True)
class ClassGuidance:
    """The class of each sample, and the guidance scale (Ho & Salimans, 2021, arXiv 2207.12598).

    labels: LongTensor [B]. no_class: the label for "no class".
    scale: s in the prediction u + s (c - u), from c with the class and u without. (The paper's w is s - 1.) At 1 this
    is c,
        and the model is evaluated once instead of twice.
    """

    labels: Tensor
    no_class: int
    scale: float = 1.0

    def predict(self, model: nn.Module, x: Tensor, t: int | Tensor) -> Tensor:
        """The guided prediction at x_t [B, ...]; evaluates with and without class in one batch."""
        if self.scale == 1:
            return model(x, t, self.labels).sample
        steps = torch.as_tensor(t).expand(len(x)).repeat(2)
        labels = torch.cat([self.labels, torch.full_like(self.labels, self.no_class)])
        conditional, unconditional = model(torch.cat([x, x]), steps, labels).sample.chunk(2)
        return unconditional + self.scale * (conditional - unconditional)


def check_guidance(num_classes: int | None, class_labels: ClassLabels, scale: float) -> None:
    """Raise `UserError` for classes of an unconditional model, or a guidance scale that has no effect."""
    if class_labels is not None and num_classes is None:
        raise UserError("this model has no classes: it was trained without model.num_classes")
    if class_labels is None and scale != 1:
        kind = "a model that was trained with classes" if num_classes is None else "class labels"
        raise UserError(f"a guidance scale needs {kind}: it guides towards a class")


def drawn_by_seed(num_classes: int | None) -> str | None:
    """The `class_labels` for a sample of a random class; None for an unconditional model."""
    return None if num_classes is None else RANDOM


def resolve_labels(
    class_labels: ClassLabels,
    seeds: Sequence[int],
    num_classes: int,
    names: Sequence[str] | None = None,
    of: str = "seeds",
) -> list[int]:
    """The class of each seed; `num_classes` means no class.

    Args:
        class_labels: a class for all, or one for each seed: a number, a name, "none", or "random" (drawn uniformly,
            from the seed only). None means "none".
        seeds: seeds of the samples.
        num_classes: number of classes of the model.
        names: names of the classes, if they have any.
        of: what each label is for, for the error message.

    Raises:
        UserError: an unknown class, or the number of labels is neither 1 nor that of the seeds.
    """
    labels = listed_labels(class_labels)
    if labels is None:
        one: Any = class_labels.item() if isinstance(class_labels, Tensor | np.ndarray) else class_labels
        labels = [NO_CLASS if one is None else one] * len(seeds)
    if len(labels) != len(seeds):
        raise UserError(f"{len(seeds)} {of}, but {len(labels)} class labels: give {len(seeds)} or 1")
    return [
        _drawn(seed, num_classes) if label == RANDOM else class_index(label, num_classes, names)
        for seed, label in zip(seeds, labels, strict=True)
    ]


def listed_labels(class_labels: ClassLabels) -> list[ClassLabel] | None:
    """The labels of a list, or of a tensor or array [N]; None if there is one label or none for all."""
    if isinstance(class_labels, Tensor | np.ndarray):
        return class_labels.tolist() if class_labels.ndim else None
    if class_labels is None or isinstance(class_labels, str) or not isinstance(class_labels, Sequence):
        return None
    return list(class_labels)


def class_index(label: ClassLabel, num_classes: int, names: Sequence[str] | None = None) -> int:
    """The number of a class from its number or name ("Ankle boot", in any case); "none" is the number after the last
    class.

    Raises:
        UserError: there is no such class.
    """
    if isinstance(label, str):
        known = {name.casefold(): i for i, name in enumerate(names or [])} | {NO_CLASS: num_classes}
        if label.casefold() in known:
            return known[label.casefold()]
        if label.isdecimal() and int(label) < num_classes:
            return int(label)
        hint = did_you_mean(label.casefold(), known, _choices(num_classes, names))
        raise UserError(f"unknown class {label!r}: {hint}")
    if isinstance(label, bool) or not isinstance(label, numbers.Integral) or not 0 <= label <= num_classes:
        raise UserError(f"unknown class {label!r}: {_choices(num_classes, names)}")
    return int(label)


def class_name(index: int, names: Sequence[str] | None) -> str:
    """The label of a class in a picture: its name, else its number."""
    return names[index] if names is not None and index < len(names) else str(index)


def _choices(num_classes: int, names: Sequence[str] | None) -> str:
    listed = f" ({', '.join(names)})" if names else ""
    return f"choose 0 to {num_classes - 1}{listed}, or none"


def _drawn(seed: int, num_classes: int) -> int:
    """A class drawn from the seed, independently of the seed's noise."""
    digest = hashlib.blake2b(f"class/{seed}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % num_classes
