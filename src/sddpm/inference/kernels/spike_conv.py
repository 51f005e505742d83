"""Chooses the implementation of spike convolutions on the CPU.

The environment variable SDDPM_SPIKE_CONV chooses it. It is read when a layer is made:

    auto      (default) the fastest of those below that this machine has
    amx       matrix units for 8-bit integers
    onednn    integer convolutions of PyTorch's oneDNN, on CPUs with AMX
    avx512    tables in registers
    avx2      tables in the first-level cache
    portable  the same tables, for any instruction set
    float32   PyTorch's float32 convolution
"""

import logging
from functools import cache

import torch
from torch import Tensor

from sddpm.choices import choice_from_environment
from sddpm.errors import UserError
from sddpm.inference.kernels import native_conv, onednn
from sddpm.inference.kernels.native_conv import NativeSpikeConv2d
from sddpm.inference.kernels.onednn import PLANES, OnednnSpikeConv2d
from sddpm.inference.torch_ops import TorchSpikeConv2d

VARIABLE = "SDDPM_SPIKE_CONV"

logger = logging.getLogger(__name__)


def choices() -> list[str]:
    """Names of all implementations, the fastest first; this machine may support fewer."""
    ours = native_conv.kernels()
    found = [name for name in ours if name not in {kernel.fast for kernel in ours.values()}]
    found.insert(found.index("amx") + 1 if "amx" in found else 0, "onednn")
    return [*found, "float32"]


def _has_amx() -> bool:
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


def unsupported(kernel: str) -> str | None:
    """Why this machine does not support an implementation, in a few words, or None if it does."""
    if kernel == "onednn":
        return None if onednn.available() else "this PyTorch has no integer convolution"
    if kernel == "float32" or native_conv.available(kernel):
        return None
    return "it was not built" if not native_conv.available("portable") else "the CPU lacks the instructions"


@cache
def _best() -> str:
    for kernel in choices()[:-1]:
        if (kernel != "onednn" or _has_amx()) and unsupported(kernel) is None:
            return kernel
    logger.warning("spikes are convolved in float32 (the native kernels were not built)")
    return "float32"


def spike_conv_kernel() -> str:
    """The implementation in use, one of `choices`. Raises `UserError` if the environment variable names an unsupported
    one."""
    choice = choice_from_environment(VARIABLE, ("auto", *choices()))
    if choice == "auto":
        return _best()
    reason = unsupported(choice)
    if reason is not None:
        raise UserError(f"{VARIABLE}={choice}, but this is not possible here: {reason}")
    return choice


def make_spike_conv(
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    scale: Tensor | None = None,
    stride: int = 1,
    upsample: bool = False,
    precision: str = "exact",
) -> NativeSpikeConv2d | OnednnSpikeConv2d | TorchSpikeConv2d:
    """current[n] = scale[n] conv(spikes[n], weight) + bias[n], on the CPU, with the best implementation for this
    machine.

    Args:
        weight: [O, I, k, k], k odd, float64, with the following batch norm folded in.
        bias: [O], or [S, O] with S = 1 or T; None for 0.
        scale: [T] (temporal modulation), or None for 1.
        stride: 1 or 2.
        upsample: whether spikes are repeated 2 x 2 (nearest neighbour) first.
        precision: "exact" (errors no larger than those of a float32 convolution) or "fast".

    Raises:
        UserError: the environment variable names an unsupported implementation.
    """
    kernel = spike_conv_kernel()
    if kernel == "onednn":
        planes = PLANES[precision]
        return OnednnSpikeConv2d(weight, bias, scale=scale, stride=stride, upsample=upsample, planes=planes)
    if kernel == "float32":
        return TorchSpikeConv2d(weight, bias, scale=scale, stride=stride, upsample=upsample)
    if precision == "fast":
        kernel = native_conv.kernels()[kernel].fast or kernel
    return NativeSpikeConv2d(weight, bias, scale=scale, stride=stride, upsample=upsample, kernel=kernel)
