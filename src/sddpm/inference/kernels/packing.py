"""Weights of a spike convolution as integers, in the order that the native kernels read."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, where

SLAB = 16  # output channels are padded to a multiple, as in spike_conv.h
BLOCK = 64  # inputs per step of spike_conv_amx.cpp


def flatten(weight: Tensor) -> Tensor:
    """[O, I, k, k] -> [O, k k I], in the order in which the kernels gather the spikes under a filter."""
    return weight.permute(0, 2, 3, 1).flatten(1)


def quantize(weight: Tensor, bits: int, chunk: int, most: int) -> tuple[Tensor, Tensor]:
    """The finest integers q [O, K] and units [O] with weight = q * unit, rounded, such that sums fit a signed word.

    Args:
        weight: [O, K] float64.
        bits: number of bits of the word.
        chunk: number of consecutive inputs summed in one word. Whichever of them spike, their sum lies between the sum
            of the negative weights and that of the positive weights. (Partial sums may overflow and wrap back.)
        most: the largest allowed integer in q.
    """
    missing = -weight.shape[1] % chunk
    chunks = (F.pad(weight, (0, missing)) if missing else weight).unflatten(1, (-1, chunk))
    positive = chunks.clamp(min=0).sum(-1)
    largest = positive.maximum(positive - chunks.sum(-1)).amax(1)
    room = 2.0 ** (bits - 1) - 1 - chunk  # rounding, in either direction, adds at most one unit per weight
    unit = (largest / room).maximum(weight.amax(1).maximum(-weight.amin(1)) / most)
    unit = where(largest > 0, unit, 1.0)
    return (weight / unit[:, None]).round_(), unit


def balance(q: Tensor, weight: Tensor) -> Tensor:
    """Round a few weights in the other direction, so that rounding errors cancel in the important sums.

    Spikes are not centred: the mean rounding error of a filter's weights shifts all currents of its channel, and a
    network with coarse weights would make every picture slightly darker. So first the error of each kernel of a filter
    (the taps of one input channel, whose spikes are similar) and then that of each filter is reduced to at most half a
    unit in sum (SQuant, Guo et al., ICLR 2022, without its choice of which kernels of a filter to change).

    Args:
        q: [O, k k, I] integers, rounded to nearest.
        weight: [O, k k, I], the weights that q approximates.
    """

    def cancel(q: Tensor, weight: Tensor) -> Tensor:
        error = q - weight
        excess = error.sum(-1, keepdim=True).round()
        most = int(excess.abs().max())
        worst = (error * excess.sign()).topk(most).indices
        change = where(torch.arange(most, device=excess.device) < excess.abs(), -excess.sign(), 0.0)
        return q.scatter_add(-1, worst, change)

    kernels = cancel(q.mT.contiguous(), weight.mT.contiguous()).mT
    return cancel(kernels.flatten(1), weight.flatten(1)).view_as(q)


def interleave(q: Tensor, channels: int, group: int, multiple: int) -> Tensor:
    """[O, K] -> [O' / channels, K' / group, channels, group], padded with zeros.

    K' is a multiple of group * multiple, O' of SLAB.
    """
    q = F.pad(q, (0, -q.shape[1] % (group * multiple), 0, -len(q) % SLAB))
    return q.unflatten(1, (-1, group)).unflatten(0, (-1, channels)).transpose(1, 2)


def most_of(planes: int) -> int:
    """The largest integer with this number of signed 8-bit digits."""
    return sum(127 * 256**place for place in range(planes))


def digits(q: Tensor, planes: int) -> list[Tensor]:
    """Signed digits to base 256 of contiguous int32 integers [...], the highest first: int8 [...] each."""
    shifted = q + sum(128 * 256**place for place in range(planes))  # its digits are the result plus 128
    little_endian = shifted.view(torch.uint8).unflatten(-1, (-1, 4))
    return [(little_endian[..., place] ^ 128).view(torch.int8) for place in reversed(range(planes))]


def tile_steps(channels: int, size: int) -> tuple[Tensor, Tensor]:
    """The order in which spike_conv_amx.cpp processes the inputs under a filter, `BLOCK` at a time.

    If the last block of a pixel's channels is at most half full, the kernel's copy of the spikes has the right
    neighbour's block in the other half; such a step covers two taps.

    Returns:
        [S, 3] int32: row and column of the filter, and block of channels, of each step.
        [S, BLOCK] int64: the inputs of each step, numbered as by `flatten`, or size * size * channels for none.
    """
    half, left, whole = BLOCK // 2, channels % BLOCK, channels // BLOCK
    paired = size > 1 and 0 < left <= half
    none = size * size * channels
    places, inputs = [], []
    for row in range(size):
        for column in range(size):
            tap = (row * size + column) * channels
            for block in range(whole):
                places.append((row, column, block))
                inputs.append(list(range(tap + block * BLOCK, tap + (block + 1) * BLOCK)))
            if left == 0 or (paired and column % 2):
                continue
            rest = list(range(tap + whole * BLOCK, tap + channels))
            if paired:
                rest += [none] * (half - left)
                rest += [i + channels if i < none else none for i in rest] if column + 1 < size else []
            places.append((row, column, whole))
            inputs.append(rest + [none] * (BLOCK - len(rest)))
    return torch.tensor(places, dtype=torch.int32, device="cpu"), torch.tensor(inputs, device="cpu")


def pack_tiles(q: Tensor, channels: int, size: int, planes: int) -> tuple[Tensor, Tensor]:
    """Pack integers [O, K] into the tiles of spike_conv_amx.cpp, int8, and return the positions of its steps [S, 3].

    There is one tile [BLOCK / 4][SLAB][4] for each pair of slabs of output channels, digit, step and slab.
    """
    places, inputs = tile_steps(channels, size)
    q = F.pad(q, (0, 1, 0, -len(q) % SLAB)).to(torch.int32)[:, inputs]

    def packed(q: Tensor, slabs: int) -> Tensor:
        tiles = q.unflatten(2, (-1, 4)).unflatten(0, (-1, slabs, SLAB)).permute(0, 3, 1, 4, 2, 5).contiguous()
        return torch.stack(digits(tiles, planes), dim=1).flatten()

    paired = len(q) // (2 * SLAB) * 2 * SLAB
    return torch.cat([packed(some, slabs) for some, slabs in ((q[:paired], 2), (q[paired:], 1)) if len(some)]), places


Packed = tuple[Tensor, Tensor, Tensor | None]
"""Integers in the kernel's order, their units [O] (weight = integer x unit), and the steps of spike_conv_amx.cpp."""


def _balanced(q: Tensor, flat: Tensor, unit: Tensor, taps: int) -> Tensor:
    return balance(q.unflatten(1, (taps, -1)), (flat / unit[:, None]).unflatten(1, (taps, -1))).flatten(1)


def _whole(weight: Tensor, planes: int = 3) -> tuple[Tensor, Tensor]:
    """Integers [O, K] whose sums fill 32 bits, and units; the same for all exact kernels, so that their results are
    equal."""
    flat = flatten(weight.double())
    q, unit = quantize(flat, 32, flat.shape[1], most_of(planes))
    return (_balanced(q, flat, unit, weight.shape[-1] ** 2) if planes == 1 else q), unit


def _tiles(weight: Tensor, planes: int) -> Packed:
    q, unit = _whole(weight, planes)
    tiles, steps = pack_tiles(q, weight.shape[1], weight.shape[-1], planes)
    return tiles, unit, steps


def _columns(weight: Tensor) -> Packed:
    q, unit = _whole(weight)
    return interleave(q, 4, 5, 4).to(torch.int32).contiguous(), unit, None


def _rows(weight: Tensor) -> Packed:
    q, unit = _whole(weight)
    return interleave(q, SLAB, 5, 4).transpose(2, 3).to(torch.int32).contiguous(), unit, None


def _columns_of_16_bits(weight: Tensor) -> Packed:
    """24 inputs per step, at most 12 steps per chunk: see spike_conv_avx512.cpp."""
    flat = flatten(weight.double())
    steps = -(-flat.shape[1] // 24)
    q, unit = quantize(flat, 16, 24 * -(-steps // -(-steps // 12)), 2**15 - 1)
    q = _balanced(q, flat, unit, weight.shape[-1] ** 2)
    return interleave(q, 4, 6, 4).to(torch.int16).contiguous(), unit, None


PACKINGS: dict[str, Callable[[Tensor], Packed]] = {
    "tiles of 3 digits": partial(_tiles, planes=3),
    "tiles of 1 digit": partial(_tiles, planes=1),
    "groups of 5 by 4 channels": _columns,
    "groups of 6 by 4 channels, 16 bits": _columns_of_16_bits,
    "rows of 5 by slabs": _rows,
}
"""Functions that pack weights [O, I, k, k] for the kernels of csrc/spike_conv*.cpp, by the `packing` of their table
row."""
