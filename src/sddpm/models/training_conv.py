"""The convolution of a training step on the CPU, and which kernels compute it.

The environment variable SDDPM_TRAINING_CONV chooses the kernels. It is read at every call:

    auto      (default) the fastest of those below
    amx       bfloat16 on matrix units wherever they cover a layer, else as winograd
    winograd  fewer multiplications, where that is faster, else as torch
    torch     PyTorch's convolution
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sddpm import native
from sddpm.choices import choice_from_environment
from sddpm.models.kernels import amx, winograd
from sddpm.models.kernels.geometry import ConvGeometry
from sddpm.neurons.kernels import fused_allowed

VARIABLE = "SDDPM_TRAINING_CONV"
CHOICES = ("auto", "amx", "winograd", "torch")


@dataclass(frozen=True)
class TrainingConv:
    """A convolution [N, C, H, W] -> [N, C', H', W'], optionally of images upsampled by two, and its gradients."""

    geometry: ConvGeometry
    dtype: torch.dtype  # dtype of the computation
    upsample: bool = False

    @property
    def stride(self) -> int:
        """The stride of rows; our kernels need the same stride for columns."""
        return self.geometry.stride[0]

    def choose(self, part: str, x: Tensor, weight: Tensor) -> str:
        """Which kernels compute a part ("convolve", "input_gradient" or "weight_gradient") of the convolution of x, or
        of any tensor with the shape and dtype of x: "amx", "winograd" or "torch"."""
        wanted = choice_from_environment(VARIABLE, CHOICES)
        if wanted == "torch" or x.dtype != self.dtype:
            return "torch"
        upsample = self.upsample
        gains = wanted == "amx" or amx.gains(part, x, weight, stride=self.stride, upsample=upsample)
        if wanted != "winograd" and gains and amx.covers(x, weight, self.geometry, upsample=upsample):
            return "amx"
        return "winograd" if winograd.gains(x, weight, self.geometry, upsample=upsample) else "torch"

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The convolution's output."""
        kernels = self.choose("convolve", x, weight)
        if kernels == "amx":
            return amx.convolve(x, weight, bias, stride=self.stride, upsample=self.upsample)
        if kernels == "winograd":
            return winograd.convolve(x, weight, bias, upsample=self.upsample)
        with torch.autocast("cpu", enabled=False):
            return torch.convolution(self._input(x), weight.to(self.dtype), bias.to(self.dtype), *self.geometry)

    def input_gradient(self, grad: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        """The gradient of the input, with the shape and dtype of x, from the gradient of the output."""
        kernels = self.choose("input_gradient", x, weight)
        if kernels == "amx":
            return amx.input_gradient(grad, weight, x.shape, stride=self.stride, upsample=self.upsample)
        if kernels == "winograd":
            return winograd.input_gradient(grad, weight, upsample=self.upsample)
        shape = (*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3]) if self.upsample else x.shape
        placeholder = torch.empty(  # only its shape matters
            shape, dtype=self.dtype, device=grad.device, memory_format=torch.channels_last
        )
        weight, mask = weight.to(self.dtype), [True, False, False]
        grad = torch.ops.aten.convolution_backward(grad, placeholder, weight, None, *self.geometry, mask)[0]
        if self.upsample:
            grad = torch.ops.aten.upsample_nearest2d_backward(grad, shape[2:], x.shape, 2.0, 2.0)
        return grad.to(x.dtype)

    def weight_gradient(self, grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of weight and bias, from x and the gradient of the output."""
        kernels = self.choose("weight_gradient", x, weight)
        if kernels == "amx":
            kernel = weight.shape[2]
            return amx.weight_gradient(x, grad, kernel=kernel, stride=self.stride, upsample=self.upsample)
        if kernels == "winograd":
            return winograd.weight_gradient(x, grad, upsample=self.upsample)
        mask, sizes, small = [False, True, True], [len(weight)], weight.to(self.dtype)
        x = self._input(x)
        _, *gradients = torch.ops.aten.convolution_backward(grad, x, small, sizes, *self.geometry, mask)
        return gradients[0].to(weight), gradients[1].to(weight.dtype)

    def _input(self, x: Tensor) -> Tensor:
        """The input for PyTorch's convolution."""
        return (F.interpolate(x, scale_factor=2, mode="nearest") if self.upsample else x).to(self.dtype)


def autocast_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which a convolution of x is computed."""
    autocast = torch.is_autocast_enabled("cpu") and x.dtype != torch.float64
    return torch.get_autocast_dtype("cpu") if autocast else x.dtype


def training_conv(conv: nn.Conv2d, x: Tensor) -> Tensor | None:
    """conv(x) for x [N, C, H, W] if a gradient is needed and our kernels compute it; else None."""
    if not (torch.is_grad_enabled() and fused_allowed()) or native.unsupported_tensor(x) is not None:
        return None
    if isinstance(conv.padding, str) or conv.padding_mode != "zeros" or conv.bias is None:
        return None
    layer = TrainingConv(ConvGeometry.of(conv), autocast_dtype(x))
    if not conv.weight.requires_grad or layer.choose("weight_gradient", x, conv.weight) != "amx":
        return None
    return _Convolution.apply(x, conv.weight, conv.bias, layer)  # type: ignore[return-value]


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, layer: TrainingConv) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.layer = layer
        return layer.convolve(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        x, weight = ctx.saved_tensors
        layer: TrainingConv = ctx.layer
        grad_x = layer.input_gradient(grad, weight, x) if ctx.needs_input_grad[0] else None
        return grad_x, *layer.weight_gradient(grad, x, weight), None
