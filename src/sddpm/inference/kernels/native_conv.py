"""Spike convolutions in integers: csrc/spike_conv*.cpp, with tables of sums or with the matrix units of AMX.

Sums are integers, so results are bit-identical at any batch size, on any number of threads and with any of the exact
kernels. Weights have up to 24 bits, and errors are smaller than those of a float32 convolution. (The fast forms: 16-bit
sums, errors below 1 % of the currents' deviation; with AMX 8-bit weights, below 5 %.)
"""

import ctypes
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sddpm.errors import UserError
from sddpm.inference.kernels.firing import can_fire, fire, native_neuron
from sddpm.inference.kernels.packing import PACKINGS, SLAB
from sddpm.native import library, pointers, run, threads
from sddpm.neurons import SpikingNeuron
from sddpm.neurons.kernels.neuron_struct import Neuron

GRAIN = 1 << 18  # multiplications below which another thread costs more than it saves


class Call(ctypes.Structure):
    """Mirrors `struct Call` of spike_conv.h."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("kernel", "threads")),
        *((name, ctypes.c_int64) for name in ("T", "B", "H", "W", "in_channels", "out_H", "out_W", "out_channels")),
        *((name, ctypes.c_int64) for name in ("size", "stride", "upsample")),
        *((name, ctypes.c_int64) for name in ("scale_stride", "bias_stride", "fired_stride", "steps")),
        ("neuron", Neuron),
        *(
            (name, ctypes.c_void_p)
            for name in ("spikes", "weights", "step_places", "scale", "bias", "add", "currents", "fired")
        ),
    )


class KernelRow(ctypes.Structure):
    """Mirrors `struct KernelRow` of spike_conv.cpp.

    name: of the kernel; fast: name of its replacement in fast mode, or None; packing: a name of `PACKINGS`;
    available: whether this machine can run it.
    """

    _fields_ = (*((name, ctypes.c_char_p) for name in ("name", "fast", "packing")), ("available", ctypes.c_int32))


class SpikeKernel(NamedTuple):
    """A row of the table of spike_conv.cpp: its index, and the fields of `KernelRow`."""

    place: int
    fast: str | None
    packing: str
    available: bool


@cache
def kernels() -> dict[str, SpikeKernel]:
    """All built kernels, the fastest first."""
    native, found, row = library(), {}, KernelRow()
    while native is not None and native.sddpm_spike_conv_kernel(len(found), ctypes.byref(row)):
        fast = None if row.fast is None else row.fast.decode()
        found[row.name.decode()] = SpikeKernel(len(found), fast, row.packing.decode(), bool(row.available))
    return found


def available(kernel: str) -> bool:
    """Whether a kernel was built, and runs on this machine."""
    return library() is not None and kernel in kernels() and kernels()[kernel].available


class NativeSpikeConv2d:
    """current[n] = scale[n] conv(spikes[n], weight) + bias[n], same-padded; everything channels last.

    Args:
        weight: [O, I, k, k], k odd, float64, with the following batch norm folded in.
        bias: [O], or [S, O] with S = 1 or T; None for 0.
        scale: [T] (temporal modulation), or None for 1.
        stride: 1 or 2.
        upsample: whether spikes are repeated 2 x 2 (nearest neighbour) first.
        kernel: one of `kernels` that is `available`.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        scale: Tensor | None = None,
        stride: int = 1,
        upsample: bool = False,
        kernel: str,
    ):
        self.out_channels, self.in_channels, self.size, _ = weight.shape
        self.stride, self.upsample, self.kernel = stride, upsample, kernel
        self._padding = -self.out_channels % SLAB
        self._weights, unit, self._steps = PACKINGS[kernels()[kernel].packing](weight)
        self._scale = self._rows(unit if scale is None else scale.double()[:, None] * unit)
        self._bias = self._rows(weight.new_zeros(self.out_channels) if bias is None else bias)

    def __call__(self, spikes: Tensor, *, channel_bias: Tensor | None = None, add: Tensor | None = None) -> Tensor:
        """Compute the currents.

        Args:
            spikes: uint8 [T, B, H, W, I], 0 or 1.
            channel_bias: float32 [S, O] with S = 1 or T, added to the bias; None for 0.
            add: float32 [T, B, H', W', O], added to the currents; None for 0.

        Returns:
            float32 [T, B, H', W', O], with H' = H / stride (rounded up), or 2 H after upsampling.

        Raises:
            UserError: spikes of another dtype or number of channels.
        """
        currents = torch.empty(self._out_shape(spikes), dtype=torch.float32, device="cpu")
        self._run(spikes, channel_bias, add, currents=currents)
        return currents

    def fire(self, spikes: Tensor, neuron: SpikingNeuron, *, channel_bias: Tensor | None = None) -> Tensor:
        """Spikes, uint8 [T, B, H', W', O], of the layer of neurons that receives the currents; the currents are never
        written.

        Args:
            spikes: uint8 [T, B, H, W, I], 0 or 1.
            neuron: its dynamics, threshold and w are read at every call.
            channel_bias: as in a call.

        Raises:
            UserError: as in a call.
        """
        if not can_fire(neuron):
            return fire(neuron, [self(spikes, channel_bias=channel_bias)])
        fired = torch.empty(self._out_shape(spikes), dtype=torch.uint8, device="cpu")
        self._run(spikes, channel_bias, None, fired=fired, neuron=neuron)
        return fired

    def _rows(self, x: Tensor) -> Tensor:
        """[O] or [S, O] -> float32 [S, O'], O' a multiple of SLAB."""
        return F.pad(x.view(-1, self.out_channels), (0, self._padding)).float().contiguous()

    def _out_shape(self, spikes: Tensor) -> tuple[int, ...]:
        T, B, H, W, channels = spikes.shape
        if spikes.dtype != torch.uint8 or channels != self.in_channels:
            raise UserError(
                f"expected spikes as bytes [T, B, H, W, {self.in_channels}], got {spikes.dtype} {list(spikes.shape)}"
            )
        up = 2 if self.upsample else 1
        return T, B, -(-H * up // self.stride), -(-W * up // self.stride), self.out_channels

    def _run(
        self,
        spikes: Tensor,
        channel_bias: Tensor | None,
        add: Tensor | None,
        *,
        currents: Tensor | None = None,
        fired: Tensor | None = None,
        neuron: SpikingNeuron | None = None,
    ) -> None:
        spikes = spikes.contiguous()
        bias = self._bias if channel_bias is None else self._bias + self._rows(channel_bias)
        T, B, out_H, out_W, _ = shape = self._out_shape(spikes)
        if add is not None:
            assert add.shape == shape
            add = add.contiguous()
        assert {len(bias), len(self._scale)} <= {1, T}
        work = T * B * out_H * out_W * self._weights.numel()
        call = Call(
            kernel=kernels()[self.kernel].place,
            threads=max(1, min(threads(), work // GRAIN)),
            T=T,
            B=B,
            H=spikes.shape[2],
            W=spikes.shape[3],
            in_channels=self.in_channels,
            out_H=out_H,
            out_W=out_W,
            out_channels=self.out_channels,
            size=self.size,
            stride=self.stride,
            upsample=self.upsample,
            scale_stride=self._scale.stride(0) if len(self._scale) > 1 else 0,
            bias_stride=bias.stride(0) if len(bias) > 1 else 0,
            fired_stride=self.out_channels,
            steps=0 if self._steps is None else len(self._steps),
            **pointers(torch.uint8, spikes=spikes, fired=fired),
            **pointers(self._weights.dtype, weights=self._weights),
            **pointers(torch.int32, step_places=self._steps),
            **pointers(torch.float32, scale=self._scale, bias=bias, add=add, currents=currents),
        )
        if neuron is not None:
            call.neuron = native_neuron(neuron)
        run("sddpm_spike_conv", call)
