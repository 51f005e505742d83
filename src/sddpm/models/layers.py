"""Layers over [T, B, C, H, W]. Layers that act on each time step separately receive the flattened [T*B, C, H, W]."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sddpm.models.training_conv import training_conv


class StepConv2d(nn.Conv2d):
    """A convolution applied to every SNN time step: [T, B, C, H, W] -> [T, B, C', H', W']."""

    def forward(self, x: Tensor) -> Tensor:
        images = x.flatten(0, 1)
        out = training_conv(self, images)
        return (super().forward(images) if out is None else out).unflatten(0, x.shape[:2])


class ModulatedStepConv2d(StepConv2d):
    """A convolution whose output, bias included, is scaled per time step (TSM; SDM, arXiv 2408.16467, section 4).

    `p` [T] is learned and starts at 1, where the layer equals the plain convolution. An input with one time step
    stands for T equal ones. If `step` is set, the layer computes that time step only.
    """

    step: int | None = None

    def __init__(self, *args, T: int, **kwargs):
        super().__init__(*args, **kwargs)
        self.p = nn.Parameter(torch.ones(T))

    @property
    def scales(self) -> Tensor:
        """[T or 1, 1, 1, 1, 1]: p, or its value at time step `step` if that is set."""
        p = self.p if self.step is None else self.p[self.step : self.step + 1]
        return p.view(-1, 1, 1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scales


def make_conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    modulated_T: int | None = None,
    dims: int = 2,
) -> StepConv2d:
    """A same-padded convolution, with temporal modulation over `modulated_T` time steps if that is given.

    It convolves along `dims` axes: 2, or 1 for signals, which are one pixel high.
    """
    size = (kernel_size, kernel_size) if dims == 2 else (1, kernel_size)
    strides = (stride, stride) if dims == 2 else (1, stride)
    geometry = (in_channels, out_channels, size, strides, (size[0] // 2, size[1] // 2))
    return StepConv2d(*geometry) if modulated_T is None else ModulatedStepConv2d(*geometry, T=modulated_T)


def repeat_steps(x: Tensor, T: int) -> Tensor:
    """[1 or T, B, C, H, W] -> [T, B, C, H, W], on the flattened tensors, so that a channels-last layout survives."""
    return x if x.shape[0] == T else torch.cat([x[0]] * T).unflatten(0, (T, x.shape[1]))


def upsample_nearest(x: Tensor, factors: tuple[int, int]) -> Tensor:
    """[T, B, C, H, W] -> [T, B, C, H', W'], enlarged by `factors`."""
    return F.interpolate(x.flatten(0, 1), scale_factor=factors, mode="nearest").unflatten(0, x.shape[:2])


def concatenate(h: Tensor, skip: Tensor) -> Tensor:
    """The channels of h, then those of skip; on the flattened tensors, so that a channels-last layout survives."""
    return torch.cat([h.flatten(0, 1), skip.flatten(0, 1)], dim=1).unflatten(0, h.shape[:2])
