"""Randomness without state: every draw is a pure function of (seed, step, purpose) and of the place in the batch.

A run can therefore be resumed from its step number alone. Its result does not depend on how many processes share a
batch: each draws the whole batch's numbers on the CPU and uses its slice.
"""

import hashlib
from functools import lru_cache

import torch
from torch import Tensor


def generator(seed: int, purpose: str, number: int) -> torch.Generator:
    """A CPU generator for one purpose at one step (or epoch), independent of all others."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{number}".encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


@lru_cache(maxsize=2)  # every step needs the order of its epoch; the last step needs two
def epoch_order(seed: int, epoch: int, size: int) -> Tensor:
    """The order of the images in an epoch: a permutation, LongTensor [size]."""
    return torch.randperm(size, generator=generator(seed, "order", epoch))


def batch_indices(seed: int, step: int, batch_size: int, size: int) -> Tensor:
    """The images of a step, LongTensor [batch_size]: consecutive pieces of the epochs' orders.

    A batch at the end of an epoch continues in the next epoch, so that no image is left out.

    Args:
        seed: the run's seed.
        step: from 0.
        batch_size: over all processes.
        size: number of images in the data set.
    """
    position, end = step * batch_size, (step + 1) * batch_size
    pieces = []
    while position < end:
        epoch, start = divmod(position, size)
        piece = epoch_order(seed, epoch, size)[start : start + end - position]
        pieces.append(piece)
        position += len(piece)
    return torch.cat(pieces)
