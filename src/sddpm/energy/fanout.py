"""Synaptic operations, exactly: every spike times the number of synapses it really reaches."""

from functools import lru_cache

import torch
from torch import Tensor, nn

from sddpm.errors import UserError
from sddpm.models.attention import SpikeProduct


@lru_cache(maxsize=256)
def reach(size: int, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """How many outputs each input position of one axis contributes to, LongTensor [size].

    Output o takes the input o * stride - padding + k * dilation through tap k. Positions at the border are taken by
    fewer taps than the kernel has, and with a stride by only some of them.
    """
    outputs = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    taken = torch.arange(outputs)[:, None] * stride - padding + torch.arange(kernel)[None, :] * dilation
    return torch.bincount(taken[(taken >= 0) & (taken < size)], minlength=size)


def fan_out(layer: nn.Conv2d | nn.Linear, shape: torch.Size) -> Tensor:
    """Synapses that start at each position of the input, whatever its channel: int64 [H, W], or [] for linear layers.

    Args:
        layer: a convolution with zero padding, or a linear layer.
        shape: of its input, whose last axes are H, W.

    Raises:
        UserError: a convolution that is padded with anything but zeros.
    """
    if isinstance(layer, nn.Linear):
        return torch.tensor(layer.out_features)
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        raise UserError(f"fan-out is known for zero padding of a given width, not for {layer.padding!r}")
    rows, columns = (
        reach(shape[axis], layer.kernel_size[axis], layer.stride[axis], layer.padding[axis], layer.dilation[axis])
        for axis in (-2, -1)
    )
    return layer.out_channels // layer.groups * rows[:, None] * columns[None, :]


def synapses(layer: nn.Conv2d | nn.Linear, shape: torch.Size) -> int:
    """Connections from the inputs of one image to its outputs: the layer's MACs without those on zero padding.

    Args:
        layer: as of `fan_out`.
        shape: of its input, [..., C, H, W] or [..., C]; what comes before is not multiplied in.
    """
    if isinstance(layer, nn.Linear):
        return layer.in_features * layer.out_features
    return layer.in_channels * int(fan_out(layer, shape).sum())


def synaptic_operations(spikes: Tensor, layer: nn.Conv2d | nn.Linear) -> list[int]:
    """Accumulates that the spikes cause in a layer, for each SNN time step.

    Args:
        spikes: 0, 1 or -1; [T, B, C, H, W] into a convolution, [T, B, ..., C] into a linear layer.
        layer: what they go into. Behind an upsampling the spikes are those that it copied.
    """
    if isinstance(layer, nn.Linear):
        return [int(torch.count_nonzero(now != 0)) * layer.out_features for now in spikes]
    # Sums of ones are exact in float32 up to 2^24 a position; bfloat16 would round from 256 on. The norm is the sum of
    # |spikes| without a copy of them.
    exact = torch.promote_types(spikes.dtype, torch.float32)
    fired = torch.linalg.vector_norm(spikes, 1, dim=(1, 2), dtype=exact).cpu().double()
    return [int(n) for n in (fired * fan_out(layer, spikes.shape)).sum((1, 2)).tolist()]


def product_operations(product: SpikeProduct, q: Tensor, k: Tensor, v: Tensor) -> list[int]:
    """Accumulates of Q K^T V in the order that `product` takes, for each SNN time step.

    In the product of two trains of spikes each pair that meets is one accumulate. What it gives are numbers, which a
    spike of the third train adds to as many outputs as it reaches: the positions (of values, after Q K^T) or the
    channels of a head (of queries, after K^T V).

    Args:
        q, k, v: 0 or 1 (or -1), [T, B, C, H, W].
    """
    # [T, B, heads, channels of a head, positions]; sums of ones are exact in float64
    q, k, v = (x.abs().cpu().double().flatten(3).unflatten(2, (-1, product.head_channels)) for x in (q, k, v))
    channels, positions = q.shape[-2:]
    if product.keys_and_values_first(positions):
        pairs, spikes, reached = k.sum(-2) * v.sum(-2), q, channels
    else:
        pairs, spikes, reached = q.sum(-1) * k.sum(-1), v, positions
    return [int(met.sum() + reached * fired.sum()) for met, fired in zip(pairs, spikes, strict=True)]
