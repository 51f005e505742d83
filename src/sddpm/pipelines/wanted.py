"""Which images to sample, and of which class."""

from collections.abc import Sequence
from dataclasses import dataclass

from sddpm.errors import UserError
from sddpm.pipelines.class_guidance import NO_CLASS, RANDOM, check_guidance, class_name, resolve_labels
from sddpm.pipelines.streaming import StreamingPipeline


@dataclass(frozen=True)
class Wanted:
    """seeds: one for each image. labels: its class by number, or None for an unconditional model. rows: the names of
    the classes if several are requested; the images are ordered by class."""

    seeds: list[int]
    labels: list[int] | None = None
    rows: list[str] | None = None


def split_classes(values: Sequence[str]) -> list[str]:
    """One entry for each class in the options' values, which can contain several separated by commas."""
    return [part.strip() for value in values for part in value.split(",")]


def wanted_images(
    pipeline: StreamingPipeline, seeds: list[int], values: Sequence[str], otherwise: str = "random"
) -> Wanted:
    """Every seed in every requested class; without a class, the class labels are `otherwise`.

    Raises:
        UserError: an unknown class, or one that is named twice.
    """
    count, names = pipeline.num_classes, pipeline.class_names
    check_guidance(count, list(values) or None, 1.0)
    if count is None:
        return Wanted(seeds)
    asked: list[str | int] = [*split_classes(values)] or [otherwise]
    if asked == ["all"]:
        asked = [*range(count)]  # numbers, which cannot be confused with names
    if len(asked) == 1:
        return Wanted(seeds, resolve_labels(asked[0], seeds, count, names))
    if {"all", RANDOM} & set(asked):
        raise UserError(f"`classes={','.join(map(str, asked))}`: all and random cannot be combined with other classes")
    labels = resolve_labels(asked, range(len(asked)), count, names)
    if len(set(labels)) < len(labels):
        raise UserError(f"`classes={','.join(map(str, asked))}` names a class twice")
    rows = [NO_CLASS if label == count else class_name(label, names) for label in labels]
    return Wanted(seeds * len(labels), [label for label in labels for _ in seeds], rows)
