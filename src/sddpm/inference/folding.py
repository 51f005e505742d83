"""Batch norm folded into the convolution before it, in float64 on the CPU."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sddpm.models.layers import ModulatedStepConv2d


@dataclass(frozen=True)
class FoldedConv:
    """A convolution and the batch norm after it, at time step n: scale[n] conv(x[n], weight) + bias[n].

    weight: [O, I, k, k] float64.
    bias: [S, O] float64, with S = 1 if it is the same at all time steps, else T.
    scale: [T] float64, or None for 1.
    """

    weight: Tensor
    bias: Tensor
    scale: Tensor | None
    stride: int


def double(x: Tensor) -> Tensor:
    return x.detach().to("cpu", torch.float64)


def affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Gain and offset [C] in float64 of a batch norm in evaluation mode."""
    assert norm.running_mean is not None and norm.running_var is not None
    gain = double(norm.weight) * torch.rsqrt(double(norm.running_var) + norm.eps)
    return gain, double(norm.bias) - gain * double(norm.running_mean)


def fold(conv: nn.Conv2d, norm: nn.BatchNorm2d | None = None) -> FoldedConv:
    """Fold a convolution, with or without temporal modulation, and the batch norm after it, if there is one."""
    weight = double(conv.weight)
    bias = weight.new_zeros(conv.out_channels) if conv.bias is None else double(conv.bias)
    gain, offset = (torch.ones_like(bias), torch.zeros_like(bias)) if norm is None else affine(norm)
    scale = double(conv.p) if isinstance(conv, ModulatedStepConv2d) else None
    steps = weight.new_ones(1, 1) if scale is None else scale[:, None]
    return FoldedConv(weight * gain.view(-1, 1, 1, 1), steps * (gain * bias) + offset, scale, conv.stride[0])
