"""Exact synaptic operations: every spike times the number of synapses that it reaches."""

from functools import lru_cache

import torch
from torch import Tensor, nn

from sddpm.errors import UserError
from sddpm.models.attention import SpikeProduct


@lru_cache(maxsize=256)
def reach(size: int, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """The number of outputs that each input position of one axis contributes to, LongTensor [size].

    Output o reads the input at o * stride - padding + k * dilation through tap k. Positions at the border are read by
    fewer taps than the kernel has, and with a stride only by some of them.
    """
    outputs = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    taken = torch.arange(outputs)[:, None] * stride - padding + torch.arange(kernel)[None, :] * dilation
    return torch.bincount(taken[(taken >= 0) & (taken < size)], minlength=size)


def fan_out(layer: nn.Conv2d | nn.Linear, shape: torch.Size) -> Tensor:
    """Number of synapses from each position of the input, the same for all channels: int64 [H, W], or [] for linear
    layers.

    Args:
        layer: a convolution with zero padding, or a linear layer.
        shape: shape of its input, whose last axes are H, W.

    Raises:
        UserError: a convolution with padding other than zeros.
    """
    if isinstance(layer, nn.Linear):
        return torch.tensor(layer.out_features)
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        raise UserError(f"fan-out needs zero padding of a given width, not {layer.padding!r}")
    rows, columns = (
        reach(shape[axis], layer.kernel_size[axis], layer.stride[axis], layer.padding[axis], layer.dilation[axis])
        for axis in (-2, -1)
    )
    return layer.out_channels // layer.groups * rows[:, None] * columns[None, :]


def synapses(layer: nn.Conv2d | nn.Linear, shape: torch.Size) -> int:
    """Connections from the inputs of one image to its outputs: the layer's MACs without those on zero padding.

    Args:
        layer: as in `fan_out`.
        shape: shape of its input, [..., C, H, W] or [..., C]; leading dimensions are ignored.
    """
    if isinstance(layer, nn.Linear):
        return layer.in_features * layer.out_features
    return layer.in_channels * int(fan_out(layer, shape).sum())


def synaptic_operations(spikes: Tensor, layer: nn.Conv2d | nn.Linear) -> list[int]:
    """Accumulates that the spikes cause in a layer, for each SNN time step.

    Args:
        spikes: 0, 1 or -1; [T, B, C, H, W] into a convolution, [T, B, ..., C] into a linear layer.
        layer: the layer that receives them. After an upsampling, pass the upsampled spikes.
    """
    if isinstance(layer, nn.Linear):
        return [int(torch.count_nonzero(now != 0)) * layer.out_features for now in spikes]
    # Sums of ones are exact in float32 up to 2^24 per position; bfloat16 would round above 256. The norm is the sum of
    # |spikes| without a copy of them.
    exact = torch.promote_types(spikes.dtype, torch.float32)
    fired = torch.linalg.vector_norm(spikes, 1, dim=(1, 2), dtype=exact).cpu().double()
    return [int(n) for n in (fired * fan_out(layer, spikes.shape)).sum((1, 2)).tolist()]


def product_operations(product: SpikeProduct, q: Tensor, k: Tensor, v: Tensor) -> list[int]:
    """Accumulates of Q K^T V in the order of `product`, for each SNN time step.

    In a product of two spike trains each pair of coinciding spikes is one accumulate. The result consists of numbers.
    Each spike of the third tensor adds one of them to all outputs that it reaches: the positions (for values, after Q
    K^T) or the channels of a head (for queries, after K^T V).

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
