"""Batch norm in training on the CPU, channels innermost: norm.cpp. Thin wrappers, no autograd.

Tensors x, grad, out, spikes are [T, B, C, H, W], dense, with C innermost in memory; numbers per channel are float32 for
float32 and bfloat16 tensors, and float64 for float64 ones. Sums over the batch are float64. Results depend neither on
the number of threads nor on the instruction set.
"""

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from sddpm.native import TYPES, pointer, run, threads_for
from sddpm.neurons.functional import Dynamics
from sddpm.neurons.kernels.neuron_struct import Neuron, neuron_struct

LIKE_X = ("x", "add", "grad", "out", "spikes")  # these have the shape and dtype of x
PER_CHANNEL = ("mean", "scale", "shift", "factor")
SUMS = ("sums", "image_sums", "grad_leak")


class NormCall(ctypes.Structure):
    """Mirrors `struct NormCall` of norm.cpp."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("type", "threads")),
        *((name, ctypes.c_int64) for name in ("T", "images", "pixels", "channels", "shift_stride")),
        ("neuron", Neuron),
        *((name, ctypes.c_void_p) for name in (*LIKE_X, *PER_CHANNEL, *SUMS)),
    )


@dataclass(frozen=True)
class NeuronCall:
    """A neuron as the argument of a kernel call; `leak` is PLIF's sigmoid(w)."""

    dynamics: Dynamics
    v_threshold: float
    leak: Tensor | None = None


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype of per-channel numbers for tensors of `dtype`."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _call(x: Tensor, neuron: NeuronCall | None = None, **tensors: Tensor | None) -> NormCall:
    T, images, channels, height, width = x.shape
    tensors["x"] = x
    call = NormCall(
        type=TYPES[x.dtype],
        threads=threads_for(x.numel()),
        T=T,
        images=images,
        pixels=height * width,
        channels=channels,
    )
    per_channel = wide(x.dtype)
    for name, tensor in tensors.items():
        if tensor is not None:
            dtype = x.dtype if name in LIKE_X else per_channel if name in PER_CHANNEL else torch.float64
            setattr(call, name, pointer(name, tensor, dtype))
    if neuron is not None:
        call.neuron = neuron_struct(neuron.dynamics, neuron.v_threshold, neuron.leak)
    shift = tensors.get("shift")
    if shift is not None and shift.dim() == 2:
        call.shift_stride = channels
    return call


def _sums(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float64, device="cpu")


def moments(x: Tensor) -> Tensor:
    """float64 [2, C]: mean, and summed squared deviations from it, over T, B, H and W."""
    sums = _sums(2, x.shape[2])
    run("sddpm_norm_moments", _call(x, sums=sums))
    return sums


def apply(x: Tensor, scale: Tensor, shift: Tensor, add: Tensor | None = None) -> Tensor:
    """x * scale + shift + add, with scale and shift [C]."""
    out = torch.empty_like(x)
    run("sddpm_norm_apply", _call(x, scale=scale, shift=shift, add=add, out=out))
    return out


def gradient_sums(x: Tensor, mean: Tensor, grad: Tensor) -> Tensor:
    """float64 [2, C]: sums over T, B, H and W of grad and of grad (x - mean)."""
    sums = _sums(2, x.shape[2])
    run("sddpm_norm_gradient_sums", _call(x, mean=mean, grad=grad, sums=sums))
    return sums


def input_gradient(x: Tensor, mean: Tensor, scale: Tensor, factor: Tensor, grad: Tensor, out: Tensor) -> None:
    """scale (grad - factor[0] - (x - mean) factor[1]), written to `out`, which may be `grad`."""
    run("sddpm_norm_input_gradient", _call(x, mean=mean, scale=scale, factor=factor, grad=grad, out=out))


def fire(x: Tensor, scale: Tensor, shift: Tensor, neuron: NeuronCall) -> Tensor:
    """Spikes, in the dtype of x, of neurons with the currents x * scale + shift; shift [C] or [B, C]."""
    spikes = torch.empty_like(x)
    run("sddpm_norm_fire", _call(x, neuron, scale=scale, shift=shift, out=spikes))
    return spikes


def fire_backward(
    x: Tensor, mean: Tensor, scale: Tensor, shift: Tensor, neuron: NeuronCall, *, grad: Tensor, spikes: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Overwrite `grad`, the gradient of the spikes, with that of the currents; also recomputes `spikes`.

    Returns:
        The sums of `gradient_sums` for the gradient of the currents; its sums over T, H and W alone, float64 [B, C];
        and PLIF's gradient of leak.
    """
    sums = _sums(2, x.shape[2])
    image_sums = _sums(x.shape[1], x.shape[2])
    grad_leak = None if neuron.leak is None else torch.zeros((), dtype=torch.float64, device="cpu")
    tensors = {"mean": mean, "scale": scale, "shift": shift, "grad": grad, "out": grad, "spikes": spikes}
    call = _call(x, neuron, **tensors, sums=sums, image_sums=image_sums, grad_leak=grad_leak)
    run("sddpm_norm_fire_backward", call)
    return sums, image_sums, grad_leak
