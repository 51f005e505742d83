"""The data of a training step: images, noise, time steps and classes, for this process's share of the global batch."""

from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from sddpm.data import ImageDataset, iterate_batches
from sddpm.errors import UserError
from sddpm.models.config import MOST
from sddpm.training.assignment import assign_noise
from sddpm.training.config import Config
from sddpm.training.noise import timestep_sampler
from sddpm.training.randomness import batch_indices, generator


@dataclass(frozen=True)
class Batch:
    """images: uint8 [B, C, H, W], or signals, float32 [B, C, L]; noise: standard normal, float32 of that shape;
    t: LongTensor [B]; labels: LongTensor [B], or None for an unconditional model. On the CPU."""

    images: Tensor
    noise: Tensor
    t: Tensor
    labels: Tensor | None = None

    def split(self, parts: int) -> "list[Batch]":
        """Split into micro-batches of equal size."""
        labels = [None] * parts if self.labels is None else self.labels.chunk(parts)
        pieces = (tensor.chunk(parts) for tensor in (self.images, self.noise, self.t))
        return [Batch(*piece) for piece in zip(*pieces, labels, strict=True)]

    def pin(self) -> "Batch":
        """Page-lock the batch, so that the copy to a GPU does not block the host."""
        labels = None if self.labels is None else self.labels.pin_memory()
        return Batch(self.images.pin_memory(), self.noise.pin_memory(), self.t.pin_memory(), labels)


def share_of_batch(batch_size: int, accumulation: int, rank: int, processes: int) -> Tensor:
    """The rows of the global batch that belong to process `rank`, one micro-batch after another, LongTensor.

    The micro-batches of all processes together are consecutive rows, whatever the number of processes, so that batch
    norm uses the same rows.

    Raises:
        UserError: the batch size is not divisible.
    """
    if batch_size % (processes * accumulation):
        raise UserError(
            f"train.batch_size {batch_size} is not divisible by {processes} processes x train.accumulation "
            f"{accumulation}: choose a multiple of {processes * accumulation}"
        )
    return torch.arange(batch_size).view(accumulation, processes, -1)[:, rank].flatten()


def training_batches(dataset: ImageDataset, config: Config, start: int, rows: Tensor) -> Generator[Batch, None, None]:
    """The batches of steps `start`, start + 1, ... to the last, only the rows of the global batch that this process
    handles."""
    seed, size = config.train.seed, config.train.batch_size
    steps, draw_t = range(start, config.train.steps), timestep_sampler(config)

    def indices(step: int) -> Tensor:
        return batch_indices(seed, step, size, len(dataset))[rows]

    for step, images in zip(steps, iterate_batches(dataset, map(indices, steps)), strict=True):
        if config.data.flip:
            flip = torch.rand(size, generator=generator(seed, "flip", step))[rows] < 0.5
            images = torch.where(flip.view(-1, *[1] * (images.ndim - 1)), images.flip(-1), images)
        noise = torch.randn(size, *images.shape[1:], generator=generator(seed, "noise", step))
        t = draw_t(step)
        own = noise[rows]
        if config.train.assign_noise:
            parts = zip(images.chunk(config.train.accumulation), own.chunk(config.train.accumulation), strict=True)
            own = torch.cat([assign_noise(*part) for part in parts])
        yield Batch(images, own, t[rows], _labels(dataset, config, step, indices(step), rows))


def check_labels(dataset: ImageDataset, num_classes: int | None) -> None:
    """Raise `UserError` if the labels of the data do not fit a model of that many classes."""
    if num_classes is None:
        return
    if dataset.labels is None:
        why = f"has no usable labels ({dataset.label_problem})" if dataset.label_problem else "has no labels"
        raise UserError(f"{dataset.name} {why}: a model of {num_classes} classes cannot be learned from it")
    first, last = int(dataset.labels.min()), int(dataset.labels.max())
    if first < 0 or last >= MOST["num_classes"]:
        raise UserError(f"{dataset.name} has the label {first if first < 0 else last}: classes are numbered from 0")
    if last >= num_classes:
        raise UserError(f"{dataset.name} has the classes {first} to {last}: model.num_classes={num_classes} is too few")


def _labels(dataset: ImageDataset, config: Config, step: int, indices: Tensor, rows: Tensor) -> Tensor | None:
    """The classes of images that have been read (a damaged image is replaced by another, also in its label), some
    dropped."""
    if config.model.num_classes is None or dataset.labels is None:
        return None
    drawn = torch.rand(config.train.batch_size, generator=generator(config.train.seed, "label dropout", step))[rows]
    return torch.where(drawn < config.train.label_dropout, config.model.num_classes, dataset.labels[indices])
