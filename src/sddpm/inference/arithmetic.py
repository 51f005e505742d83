"""How a compiled network computes: where, in which precision, and with whose convolutions."""

from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from sddpm.inference import kernels, torch_ops
from sddpm.inference.dense import Dense, TorchDense
from sddpm.inference.folding import FoldedConv
from sddpm.neurons import SpikingNeuron


class SpikeConv(Protocol):
    """A convolution over spikes, uint8 [T, B, H, W, I], and the neurons that may follow it."""

    def __call__(self, spikes: Tensor, *, channel_bias: Tensor | None = None, add: Tensor | None = None) -> Tensor: ...

    def fire(self, spikes: Tensor, neuron: SpikingNeuron, *, channel_bias: Tensor | None = None) -> Tensor: ...


@dataclass(frozen=True)
class Arithmetic:
    """device and dtype: of the currents. precision: "exact" or "fast"."""

    device: torch.device
    dtype: torch.dtype
    precision: str

    @property
    def native(self) -> bool:
        """Whether the kernels of this package can compute, rather than PyTorch's operators."""
        return self.device.type == "cpu" and self.dtype == torch.float32

    def dense(self) -> Dense | TorchDense:
        """For layers over real values."""
        return Dense() if self.native and Dense.available() else TorchDense(self.device, self.dtype)

    def spike_conv(self, folded: FoldedConv, *, bias: bool = True, upsample: bool = False) -> SpikeConv:
        make = partial(kernels.SpikeConv2d, precision=self.precision)
        if not self.native:
            dtype = torch.bfloat16 if self.precision == "fast" else self.dtype
            make = partial(torch_ops.TorchSpikeConv2d, dtype=dtype, current_dtype=self.dtype)
        return make(
            folded.weight.to(self.device),
            folded.bias.to(self.device) if bias else None,
            scale=None if folded.scale is None else folded.scale.to(self.device),
            stride=folded.stride,
            upsample=upsample,
        )

    def fire(self, neuron: SpikingNeuron, parts: list[Tensor]) -> Tensor:
        return (kernels if self.native else torch_ops).fire(neuron, parts)
