"""How a compiled network computes: its device, precision and convolution kernels."""

from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from sddpm.inference import kernels, torch_ops
from sddpm.inference.dense import Dense, TorchDense
from sddpm.inference.folding import FoldedConv
from sddpm.neurons import SpikingNeuron


class SpikeConv(Protocol):
    """A convolution over spikes [T, B, H, W, I], optionally followed by neurons."""

    def __call__(self, spikes: Tensor, *, channel_bias: Tensor | None = None, add: Tensor | None = None) -> Tensor: ...

    def fire(self, spikes: Tensor, neuron: SpikingNeuron, *, channel_bias: Tensor | None = None) -> Tensor: ...


@dataclass(frozen=True)
class Arithmetic:
    """The device, precision and kernels of a compiled network.

    device, dtype: the device, and the dtype of biases and sums.
    precision: "exact" or "fast".
    half: whether layers pass on bfloat16, as under autocast in training: currents, and spikes, which then need no
        conversion before a convolution. (Membranes are float32.)
    """

    device: torch.device
    dtype: torch.dtype
    precision: str
    half: bool = field(default=False, kw_only=True)

    @property
    def native(self) -> bool:
        """Whether this package's kernels can be used instead of PyTorch's operators."""
        return self.device.type == "cpu" and self.dtype == torch.float32 and not self.half

    @property
    def current_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.half else self.dtype

    def dense(self) -> Dense | TorchDense:
        """Operations of layers with real-valued inputs."""
        if self.native and Dense.available():
            return Dense(half=self.precision == "fast")
        return TorchDense(self.device, self.current_dtype)

    @property
    def conv_dtype(self) -> torch.dtype:
        """The dtype of PyTorch's convolutions over spikes, and of the spikes for them."""
        return torch.bfloat16 if self.precision == "fast" else self.dtype

    def spike_conv(self, folded: FoldedConv, *, bias: bool = True, upsample: bool = False) -> SpikeConv:
        make = partial(kernels.make_spike_conv, precision=self.precision)
        if not self.native:
            types = {"dtype": self.conv_dtype, "current_dtype": self.current_dtype, "bias_dtype": self.dtype}
            make = partial(torch_ops.TorchSpikeConv2d, **types)
        return make(
            folded.weight.to(self.device),
            folded.bias.to(self.device) if bias else None,
            scale=None if folded.scale is None else folded.scale.to(self.device),
            stride=folded.stride,
            upsample=upsample,
        )

    def fire(self, neuron: SpikingNeuron, parts: list[Tensor]) -> Tensor:
        if self.native:
            return kernels.fire(neuron, parts)
        return torch_ops.fire(neuron, parts, self.conv_dtype)


def arithmetic_for(device: torch.device, dtype: torch.dtype, mode: str) -> Arithmetic:
    """The arithmetic for a model with weights of this dtype on this device."""
    return Arithmetic(device, dtype, mode, half=mode == "fast" and device.type == "cuda")
