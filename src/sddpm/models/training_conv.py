"""The convolution of a training step on the CPU, and which kernels compute it.

The environment variable SDDPM_TRAINING_CONV chooses, and is read at every call:

    auto      (default) the first of those below that covers a layer and gains by it
    amx       bfloat16 on matrix units
    winograd  fewer multiplications
    torch     PyTorch's

A name other than auto forbids those above it.
"""

import os
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sddpm.errors import UserError
from sddpm.neurons.kernels import amx, winograd

VARIABLE = "SDDPM_TRAINING_CONV"
CHOICES = ("auto", "amx", "winograd", "torch")


@dataclass(frozen=True)
class TrainingConv:
    """A convolution [N, C, H, W] -> [N, C', H', W'], perhaps of images upsampled by two, and its gradients."""

    geometry: tuple  # stride, padding, dilation, transposed, output padding, groups
    dtype: torch.dtype  # that it computes in
    upsample: bool = False

    def choose(self, x: Tensor, weight: Tensor) -> str:
        """Which kernels convolve x (or anything of its shape and type): "amx", "winograd" or "torch"."""
        wanted = os.environ.get(VARIABLE, "auto")
        if wanted not in CHOICES:
            raise UserError(f"{VARIABLE} must be one of {', '.join(CHOICES)}, got {wanted!r}")
        if wanted == "torch" or x.dtype != self.dtype:
            return "torch"
        if wanted != "winograd" and amx.covers(x, weight, self.geometry, upsample=self.upsample):
            return "amx"
        return "winograd" if winograd.gains(x, weight, self.geometry, upsample=self.upsample) else "torch"

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The convolution's output."""
        if self.choose(x, weight) == "winograd":
            return winograd.convolve(x, weight, bias, upsample=self.upsample)
        with torch.autocast("cpu", enabled=False):
            return torch.convolution(self._input(x), weight.to(self.dtype), bias.to(self.dtype), *self.geometry)

    def input_gradient(self, grad: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        """From the gradient of the output to that of the input, which has the shape and the type of x."""
        if self.choose(x, weight) == "winograd":
            return winograd.input_gradient(grad, weight, upsample=self.upsample)
        shape = (*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3]) if self.upsample else x.shape
        placeholder = torch.empty(shape, dtype=self.dtype, memory_format=torch.channels_last)  # only its shape matters
        weight, mask = weight.to(self.dtype), [True, False, False]
        grad = torch.ops.aten.convolution_backward(grad, placeholder, weight, None, *self.geometry, mask)[0]
        if self.upsample:
            grad = torch.ops.aten.upsample_nearest2d_backward(grad, shape[2:], x.shape, 2.0, 2.0)
        return grad.to(x.dtype)

    def weight_gradient(self, grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of weight and bias, from x and the gradient of the output."""
        kernels = self.choose(x, weight)
        if kernels == "amx":
            kernel, stride = weight.shape[2], self.geometry[0][0]
            return amx.weight_gradient(x, grad, kernel=kernel, stride=stride, upsample=self.upsample)
        if kernels == "winograd":
            return winograd.weight_gradient(x, grad, upsample=self.upsample)
        mask, sizes, small = [False, True, True], [len(weight)], weight.to(self.dtype)
        x = self._input(x)
        _, *gradients = torch.ops.aten.convolution_backward(grad, x, small, sizes, *self.geometry, mask)
        return gradients[0].to(weight), gradients[1].to(weight.dtype)

    def _input(self, x: Tensor) -> Tensor:
        """What a convolution of PyTorch's receives."""
        return (F.interpolate(x, scale_factor=2, mode="nearest") if self.upsample else x).to(self.dtype)
