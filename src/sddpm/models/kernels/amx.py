"""Convolutions of bfloat16 on the CPU's matrix units (AMX): amx_conv.h. Thin wrappers, no autograd.

3x3 with padding 1 or 1x1, with stride 1 or 2, or 3x3 after upsampling by 2. Products of bfloat16 numbers are summed in
float32. Images are [N, C, H, W] with C innermost in memory. Results do not depend on the number of threads.
"""

import ctypes

import torch
from torch import Tensor

from sddpm.layouts import innermost
from sddpm.models.kernels.geometry import ConvGeometry
from sddpm.native import library, pointer, pointers, run, threads_for

FEWEST_PIXELS = 256  # below this, the overheads of other layers dominate
SMALL_IMAGE = 25  # pixels


class ConvCall(ctypes.Structure):
    """Mirrors `struct ConvCall` of amx_conv.h."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("threads", "kernel", "stride", "upsampled", "backward")),
        *((name, ctypes.c_int64) for name in ("images", "H", "W", "out_H", "out_W", "in_channels", "out_channels")),
        *((name, ctypes.c_void_p) for name in ("x", "grad", "weight", "bias", "packed", "out")),
        *((name, ctypes.c_void_p) for name in ("partial", "grad_weight", "grad_bias")),
    )


def supported() -> bool:
    """Whether the kernels were built and this machine has matrix units; only then may they be called."""
    kernels = library()
    return kernels is not None and bool(kernels.sddpm_amx_supported())


def covers(x: Tensor, weight: Tensor, geometry: ConvGeometry, *, upsample: bool = False) -> bool:
    """Whether these kernels can convolve images like x with float32 weights [C', C, k, k]."""
    size = weight.shape[2]
    if not geometry.plain or weight.shape[2:] not in ((1, 1), (3, 3)):
        return False
    if geometry.padding != (size // 2, size // 2) or geometry.stride not in ((1, 1), (2, 2)):
        return False
    if upsample and (size, geometry.stride) != (3, (1, 1)):
        return False
    if x.dtype != torch.bfloat16 or weight.dtype != torch.float32 or weight.shape[0] % 16 or weight.shape[1] % 16:
        return False
    return x.shape[0] * x.shape[2] * x.shape[3] >= FEWEST_PIXELS and supported()


def gains(part: str, x: Tensor, weight: Tensor, *, stride: int, upsample: bool) -> bool:
    """Whether these kernels beat oneDNN's at "convolve", "input_gradient" or "weight_gradient", if they cover it.

    As measured by benchmarks/training_convolutions.py: oneDNN's forward pass is fast on larger images.
    """
    small = x.shape[2] * x.shape[3] <= SMALL_IMAGE and weight.shape[2] == 3
    strided = stride == 2 and weight.shape[2] == 3
    return part == "weight_gradient" or upsample or small or (part == "input_gradient" and strided)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int = 1, upsample: bool = False) -> Tensor:
    """The convolution [N, C', H', W'] of images [N, C, H, W], upsampled by two first if `upsample` is set."""
    x, weight = innermost(x), innermost(weight)
    size = [2 * n if upsample else -(-n // stride) for n in x.shape[2:]]
    out = _images(x.shape[0], weight.shape[0], *size)
    tensors = pointers(torch.bfloat16, x=x, out=out) | pointers(torch.float32, weight=weight, bias=bias)
    call = _call(x.shape, out.shape, weight.shape[2], stride, upsample, tensors)
    return _convolve(call, out)


def input_gradient(
    grad: Tensor, weight: Tensor, shape: tuple[int, ...], *, stride: int = 1, upsample: bool = False
) -> Tensor:
    """The gradient of x, which has the given shape, from the gradient of `convolve`'s result."""
    grad, weight = innermost(grad), innermost(weight)
    out = _images(*shape)
    tensors = pointers(torch.bfloat16, grad=grad, out=out) | pointers(torch.float32, weight=weight)
    call = _call(shape, grad.shape, weight.shape[2], stride, upsample, tensors)
    call.backward = True
    return _convolve(call, out)


def _images(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="cpu", memory_format=torch.channels_last)


def _convolve(call: ConvCall, out: Tensor) -> Tensor:
    packed = torch.empty(_scratch("sddpm_amx_packed", call), dtype=torch.bfloat16, device="cpu")
    call.packed = pointer("packed", packed, torch.bfloat16)
    run("sddpm_amx_convolve", call)
    return out


def weight_gradient(
    x: Tensor, grad: Tensor, *, kernel: int = 3, stride: int = 1, upsample: bool = False
) -> tuple[Tensor, Tensor]:
    """The gradients of weight and bias, float32, from x and the gradient of its convolution."""
    x, grad = innermost(x), innermost(grad)
    channels, out_channels = x.shape[1], grad.shape[1]
    weight = _images(out_channels, channels, kernel, kernel, dtype=torch.float32)
    bias = torch.empty(out_channels, dtype=torch.float32, device="cpu")
    tensors = pointers(torch.bfloat16, x=x, grad=grad) | pointers(torch.float32, grad_weight=weight, grad_bias=bias)
    call = _call(x.shape, grad.shape, kernel, stride, upsample, tensors)
    partial = torch.empty(_scratch("sddpm_amx_partial", call), dtype=torch.float32, device="cpu")
    call.partial = pointer("partial", partial, torch.float32)
    run("sddpm_amx_weight_gradient", call)
    return weight, bias


def _call(
    shape: tuple[int, ...],
    out_shape: tuple[int, ...],
    kernel: int,
    stride: int,
    upsample: bool,
    tensors: dict[str, int | None],
) -> ConvCall:
    images, channels, H, W = shape
    return ConvCall(
        threads=threads_for(images * H * W * channels * out_shape[1]),
        kernel=kernel,
        stride=stride,
        upsampled=upsample,
        images=images,
        H=H,
        W=W,
        out_H=out_shape[2],
        out_W=out_shape[3],
        in_channels=channels,
        out_channels=out_shape[1],
        **tensors,
    )


def _scratch(name: str, call: ConvCall) -> int:
    """How many elements of scratch memory a call needs."""
    kernels = library()
    assert kernels is not None
    function = getattr(kernels, name)
    function.restype = ctypes.c_int64
    return function(ctypes.byref(call))
