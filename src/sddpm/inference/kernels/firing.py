"""Layers of neurons with spikes as bytes."""

import ctypes

import torch
from torch import Tensor

from sddpm.inference import torch_ops
from sddpm.native import library, pointer, pointers, run, threads_for
from sddpm.neurons import SpikingNeuron
from sddpm.neurons.kernels.ids import unknown_neuron
from sddpm.neurons.kernels.neuron_struct import Neuron, neuron_struct


class FireCall(ctypes.Structure):
    """Mirrors `struct FireCall` of fire.cpp."""

    _fields_ = (
        ("threads", ctypes.c_int32),
        *((name, ctypes.c_int64) for name in ("T", "pixels", "channels", "x_stride", "fired_stride")),
        *((name, ctypes.c_int64) for name in ("scale_stride", "bias_stride")),
        ("neuron", Neuron),
        *((name, ctypes.c_void_p) for name in ("x", "scale", "bias", "fired")),
    )


def native_neuron(neuron: SpikingNeuron) -> Neuron:
    """A layer's neuron, with its current threshold and w, as an argument of the native kernels."""
    return neuron_struct(neuron.dynamics, neuron.v_threshold, None if neuron.w is None else neuron.w.sigmoid())


def available() -> bool:
    """Whether the kernel was built."""
    return library() is not None


def can_fire(neuron: SpikingNeuron) -> bool:
    """Whether the native kernels, here and after convolutions, support a layer of neurons."""
    return available() and unknown_neuron(neuron.dynamics) is None


def fire_into(
    fired: Tensor, neuron: SpikingNeuron, x: Tensor, *, scale: Tensor | None = None, bias: Tensor | None = None
) -> None:
    """Write the spikes of the currents scale[n] x[n] + bias[n]; only for neurons for which `can_fire` is true.

    Args:
        fired: uint8 [T, B, H, W, C], a slice of the channels of a contiguous tensor.
        neuron: its dynamics, threshold and w are read at every call.
        x: float32 [1 or T, B, H, W, C].
        scale: float32 [1 or T], or None.
        bias: float32 [1 or T, C], or None.
    """
    x = x.expand(fired.shape)
    if not x[0].is_contiguous():
        x = x.contiguous()
    call = FireCall(
        threads=threads_for(x.numel()),
        T=len(x),
        pixels=x[0].numel() // x.shape[-1],
        channels=x.shape[-1],
        x_stride=x.stride(0),
        fired_stride=fired.stride(3),
        scale_stride=int(scale is not None and len(scale) > 1),
        bias_stride=x.shape[-1] if bias is not None and len(bias) > 1 else 0,
        neuron=native_neuron(neuron),
        x=pointer("x", x, torch.float32, strided=True),
        fired=pointer("fired", fired, torch.uint8, strided=True),
        **pointers(torch.float32, scale=scale, bias=bias),
    )
    run("sddpm_fire", call)


def fire(neuron: SpikingNeuron, parts: list[Tensor]) -> Tensor:
    """Spikes, uint8 [T, B, H, W, C], of the concatenation of currents, without making it.

    Args:
        neuron: its dynamics, threshold and w are read at every call.
        parts: float32 [1 or T, B, H, W, C_i], C_i summing to C.
    """
    if not can_fire(neuron):
        return torch_ops.fire(neuron, parts)
    T = max(len(part) for part in parts)
    widths = [part.shape[-1] for part in parts]
    spikes = torch.empty(T, *parts[0].shape[1:-1], sum(widths), dtype=torch.uint8, device="cpu")
    for part, out in zip(parts, spikes.split(widths, dim=-1), strict=True):
        fire_into(out, neuron, part)
    return spikes
