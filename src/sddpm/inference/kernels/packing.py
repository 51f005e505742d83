"""Weights of a spike convolution as integers, in the order in which the native kernels read them."""

import torch
from torch import Tensor

SLAB = 16  # output channels are padded to a multiple, as in spike_conv.h


def flatten(weight: Tensor) -> Tensor:
    """[O, I, k, k] -> [O, K] in the order of the bits under a filter: taps by rows, channels padded to whole bytes."""
    taps = weight.permute(0, 2, 3, 1)
    return torch.nn.functional.pad(taps, (0, -weight.shape[1] % 8)).flatten(1)


def quantize(weight: Tensor, bits: int, chunk: int) -> tuple[Tensor, Tensor]:
    """The best integers q [O, K] and scales [O] with weight = q * scale, such that sums fit a signed word.

    Args:
        weight: [O, K] float64.
        bits: of the word.
        chunk: how many consecutive inputs are added up in it. Whichever of them spike, their sum lies between those of
            the negative and of the positive weights alone. (Partial sums may overflow and come back.)
    """
    padded = torch.nn.functional.pad(weight, (0, -weight.shape[1] % chunk)).unflatten(1, (-1, chunk))
    largest = torch.stack([padded.clamp(min=0).sum(-1), -padded.clamp(max=0).sum(-1)]).amax((0, 2))
    room = 2.0 ** (bits - 1) - 1 - chunk / 2  # each integer may be half a unit above its weight
    scale = torch.where(largest > 0, largest / room, 1.0)
    return torch.round(weight / scale[:, None]), scale


def interleave(q: Tensor, channels: int, group: int, multiple: int) -> Tensor:
    """[O, K] -> [O' / channels, K' / group, channels, group], padded with zeros, K' a multiple of group * multiple."""
    O, K = q.shape
    q = torch.nn.functional.pad(q, (0, -K % (group * multiple), 0, -O % SLAB))
    return q.unflatten(1, (-1, group)).unflatten(0, (-1, channels)).transpose(1, 2).contiguous()
