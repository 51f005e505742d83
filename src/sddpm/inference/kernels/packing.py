"""Weights of a spike convolution as integers, in the order in which the native kernels read them."""

import torch.nn.functional as F
from torch import Tensor, where

SLAB = 16  # output channels are padded to a multiple, as in spike_conv.h


def flatten(weight: Tensor) -> Tensor:
    """[O, I, k, k] -> [O, k k I], in the order in which the kernels gather the spikes under a filter."""
    return weight.permute(0, 2, 3, 1).flatten(1)


def quantize(weight: Tensor, bits: int, chunk: int) -> tuple[Tensor, Tensor]:
    """The finest integers q [O, K] and units [O] with weight = q * unit, rounded, such that sums fit a signed word.

    Args:
        weight: [O, K] float64.
        bits: of the word.
        chunk: how many consecutive inputs are added up in it. Whichever of them spike, their sum lies between those of
            the negative and of the positive weights alone. (Partial sums may overflow: they come back.)
    """
    chunks = F.pad(weight, (0, -weight.shape[1] % chunk)).unflatten(1, (-1, chunk))
    largest = (chunks.clamp(min=0).sum(-1)).maximum(-chunks.clamp(max=0).sum(-1)).amax(1)
    room = 2.0 ** (bits - 1) - 1 - chunk / 2  # rounding adds at most half a unit a weight
    unit = where(largest > 0, largest / room, 1.0)
    return (weight / unit[:, None]).round(), unit


def interleave(q: Tensor, channels: int, group: int, multiple: int) -> Tensor:
    """[O, K] -> [O' / channels, K' / group, channels, group], padded with zeros.

    K' is a multiple of group * multiple, O' of SLAB.
    """
    q = F.pad(q, (0, -q.shape[1] % (group * multiple), 0, -len(q) % SLAB))
    return q.unflatten(1, (-1, group)).unflatten(0, (-1, channels)).transpose(1, 2)
