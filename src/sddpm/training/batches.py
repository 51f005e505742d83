"""What a step learns from: images, their noise and their time steps, this process's share of the global batch."""

from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from sddpm.data import ImageDataset, iterate_batches
from sddpm.errors import UserError
from sddpm.training.config import Config
from sddpm.training.randomness import batch_indices, generator


@dataclass(frozen=True)
class Batch:
    """images: uint8 [B, C, H, W]; noise: standard normal, float32 [B, C, H, W]; t: LongTensor [B]. On the CPU."""

    images: Tensor
    noise: Tensor
    t: Tensor

    def split(self, parts: int) -> "list[Batch]":
        """Micro-batches of equal size."""
        pieces = (tensor.chunk(parts) for tensor in (self.images, self.noise, self.t))
        return [Batch(*piece) for piece in zip(*pieces, strict=True)]

    def pin(self) -> "Batch":
        """Page-locked, so that the copy to a GPU does not keep the host waiting."""
        return Batch(self.images.pin_memory(), self.noise.pin_memory(), self.t.pin_memory())


def share_of_batch(batch_size: int, accumulation: int, rank: int, processes: int) -> Tensor:
    """The rows of the global batch that belong to process `rank`, one micro-batch after another, LongTensor.

    The micro-batches of all processes together are consecutive rows, whatever the number of processes: batch norm
    sees them together.

    Raises:
        UserError: a batch that does not divide.
    """
    if batch_size % (processes * accumulation):
        raise UserError(
            f"train.batch_size {batch_size} does not divide by {processes} processes x train.accumulation "
            f"{accumulation}: choose a multiple of {processes * accumulation}"
        )
    return torch.arange(batch_size).view(accumulation, processes, -1)[:, rank].flatten()


def training_batches(dataset: ImageDataset, config: Config, start: int, rows: Tensor) -> Generator[Batch, None, None]:
    """The batches of steps `start`, start + 1, ... to the last; rows of the global batch that this process takes."""
    seed, size = config.train.seed, config.train.batch_size
    steps = range(start, config.train.steps)
    indices = (batch_indices(seed, step, size, len(dataset))[rows] for step in steps)
    for step, images in zip(steps, iterate_batches(dataset, indices), strict=True):
        if config.data.flip:
            flip = torch.rand(size, generator=generator(seed, "flip", step))[rows] < 0.5
            images = torch.where(flip[:, None, None, None], images.flip(-1), images)
        noise = torch.randn(size, *images.shape[1:], generator=generator(seed, "noise", step))
        t = torch.randint(config.diffusion.num_train_timesteps, (size,), generator=generator(seed, "t", step))
        yield Batch(images, noise[rows], t[rows])
