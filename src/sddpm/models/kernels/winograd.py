"""3x3 convolutions on the CPU by Winograd's F(2x2, 3x3): winograd.cpp. Thin wrappers, no autograd.

2.25 times fewer multiplications than a direct convolution, 4 times fewer where the input is upsampled by 2. In float32
as exact as PyTorch's convolution (gradients of weights: within 2.5 times its rounding error); in bfloat16 operands are
rounded after their transform, which at most doubles the rounding error. Images are [N, C, H, W] with C innermost in
memory. Results do not depend on the number of threads.
"""

import ctypes

import torch
from torch import Tensor

from sddpm.layouts import innermost
from sddpm.models.kernels.geometry import ConvGeometry
from sddpm.native import TYPES, library, pointer, pointers, run, threads_for

FEWEST_TILES = 128  # of 2x2 pixels: below this, transforming the weights costs more than it saves


class WinogradCall(ctypes.Structure):
    """Mirrors `struct WinogradCall` of winograd.cpp."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("type", "threads", "upsampled", "backward")),
        *((name, ctypes.c_int64) for name in ("images", "H", "W", "in_channels", "out_channels")),
        *((name, ctypes.c_void_p) for name in ("x", "grad", "weight", "bias", "transformed", "out")),
        *((name, ctypes.c_void_p) for name in ("partial", "grad_weight", "grad_bias")),
    )


def gains(x: Tensor, weight: Tensor, geometry: ConvGeometry, *, upsample: bool = False) -> bool:
    """Whether these kernels can convolve images like x with float32 weights [C', C, 3, 3], and are faster."""
    if not geometry.plain or geometry.stride != (1, 1) or geometry.padding != (1, 1):
        return False
    if weight.shape[2:] != (3, 3) or weight.dtype != torch.float32 or x.dtype not in TYPES:
        return False
    tiles = x.shape[0] * (x.shape[2] * x.shape[3] if upsample else -(-x.shape[2] // 2) * -(-x.shape[3] // 2))
    if weight.shape[0] % 16 or weight.shape[1] % 16 or tiles < FEWEST_TILES:
        return False
    kernels = library()
    return kernels is not None and bool(kernels.sddpm_winograd_supported(TYPES[x.dtype]))


def _call(x: Tensor, out_channels: int, size: tuple[int, int], tensors: dict[str, int | None]) -> WinogradCall:
    return WinogradCall(
        type=TYPES[x.dtype],
        threads=threads_for(x.numel() * out_channels),
        images=x.shape[0],
        H=size[0],
        W=size[1],
        in_channels=x.shape[1],
        out_channels=out_channels,
        **pointers(x.dtype, x=x),
        **tensors,
    )


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, *, upsample: bool, backward: bool) -> Tensor:
    factor = 2 if upsample else 1
    size = (x.shape[2], x.shape[3]) if backward else (factor * x.shape[2], factor * x.shape[3])
    out_channels = weight.shape[1] if backward else weight.shape[0]
    shape = (x.shape[0], out_channels, *((n // factor for n in size) if backward else size))
    out = torch.empty(shape, dtype=x.dtype, device="cpu", memory_format=torch.channels_last)
    transformed = torch.empty(16 * weight.shape[0] * weight.shape[1], dtype=x.dtype, device="cpu")
    tensors = pointers(x.dtype, transformed=transformed, out=out) | pointers(torch.float32, weight=weight, bias=bias)
    call = _call(x, out_channels, size, tensors)
    call.upsampled, call.backward = upsample, backward
    run("sddpm_winograd_convolve", call)
    return out


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, *, upsample: bool = False) -> Tensor:
    """The convolution [N, C', H', W'] of images [N, C, H, W], upsampled by two first if `upsample` is set."""
    return _convolve(innermost(x), innermost(weight), bias, upsample=upsample, backward=False)


def input_gradient(grad: Tensor, weight: Tensor, *, upsample: bool = False) -> Tensor:
    """The gradient of x, from the gradient of `convolve`'s result."""
    return _convolve(innermost(grad), innermost(weight), None, upsample=upsample, backward=True)


def weight_gradient(x: Tensor, grad: Tensor, *, upsample: bool = False) -> tuple[Tensor, Tensor]:
    """The gradients of weight and bias, float32, from x and the gradient of `convolve`'s result."""
    x, grad = innermost(x), innermost(grad)
    channels, out_channels = x.shape[1], grad.shape[1]
    single = {"dtype": torch.float32, "device": "cpu"}
    weight = torch.empty(out_channels, channels, 3, 3, **single, memory_format=torch.channels_last)
    bias = torch.empty(out_channels, **single)
    tensors = pointers(x.dtype, grad=grad) | pointers(torch.float32, grad_weight=weight, grad_bias=bias)
    call = _call(x, out_channels, (grad.shape[2], grad.shape[3]), tensors)
    call.upsampled = upsample
    kernels = library()
    assert kernels is not None
    kernels.sddpm_winograd_partial.restype = ctypes.c_int64
    partial = torch.empty(kernels.sddpm_winograd_partial(ctypes.byref(call)), **single)
    call.partial = pointer("partial", partial, torch.float32)
    run("sddpm_winograd_weight_gradient", call)
    return weight, bias
