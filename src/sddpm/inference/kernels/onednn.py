"""Spike convolutions by oneDNN's integer convolution: weights as planes of signed 8-bit digits.

Used on CPUs with AMX if spike_conv_amx.cpp, which is faster, could not be built.

Spikes are 0 or 1, so every plane's sums are exact integers below 2^24, in any order; three planes hold weights of 24
bits. The operators are internal to PyTorch, so `available` tries them first.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from sddpm.inference.kernels.firing import can_fire, fire_into
from sddpm.inference.kernels.packing import balance, digits, most_of
from sddpm.inference.torch_ops import TorchSpikeConv2d
from sddpm.neurons import SpikingNeuron

PLANES = {"exact": 3, "fast": 1}


class OnednnSpikeConv2d(TorchSpikeConv2d):
    """As `TorchSpikeConv2d`, with exact sums. Needs contiguous bytes."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        scale: Tensor | None = None,
        stride: int = 1,
        upsample: bool = False,
        planes: int = PLANES["exact"],
    ):
        super().__init__(weight, bias, scale=scale, stride=stride, upsample=upsample)
        del self.weight
        padding = weight.shape[-1] // 2
        self._geometry = [stride, stride], [padding, padding], [1, 1], 1
        self._zero = torch.zeros(len(weight), dtype=torch.int64, device="cpu")
        weight, most = weight.double(), most_of(planes)
        largest = weight.abs().amax((1, 2, 3))
        unit = torch.where(largest > 0, largest / most, 1.0)
        scaled = weight / unit.view(-1, 1, 1, 1)
        q = scaled.round()
        if planes == 1:
            q = balance(q.flatten(2).mT, scaled.flatten(2).mT).mT.view_as(scaled)
        # Of 1 x 1 filters `contiguous` would keep any strides, and no bytes could be viewed.
        found = digits(q.to(torch.int32).clone(memory_format=torch.contiguous_format), planes)
        self._planes = []
        for place, digit in enumerate(reversed(found)):  # the smallest first, for accurate rounding
            scales = (unit * 256.0**place).float()
            packed = torch.ops.onednn.qconv_prepack(digit.contiguous(), scales, 1.0, 0, *self._geometry, None)
            self._planes.append((packed, scales))

    def _conv(self, spikes: Tensor) -> Tensor:
        images = spikes.flatten(0, 1).permute(0, 3, 1, 2)
        if self.upsample:
            images = F.interpolate(images, scale_factor=2, mode="nearest")
        out = None
        for packed, scales in self._planes:
            weight = (images, 1.0, 0, packed, scales, self._zero)
            quantum = (1.0, 0, torch.float32)
            if out is None:
                out = torch.ops.onednn.qconv2d_pointwise(*weight, None, *self._geometry, *quantum, "none", [], "")
            else:
                sum_to = (1.0, 0, "sum", 1.0, "none", [], "")
                out = torch.ops.onednn.qconv2d_pointwise.binary(*weight, out, None, *self._geometry, *quantum, *sum_to)
        assert out is not None
        return out.permute(0, 2, 3, 1).contiguous().unflatten(0, spikes.shape[:2])

    def fire(self, spikes: Tensor, neuron: SpikingNeuron, *, channel_bias: Tensor | None = None) -> Tensor:
        if not can_fire(neuron):
            return super().fire(spikes, neuron, channel_bias=channel_bias)
        currents = self._conv(spikes)
        fired = torch.empty(currents.shape, dtype=torch.uint8, device="cpu")
        offset = self._offset(channel_bias)
        scale = None if self.scale is None else self.scale.flatten()
        fire_into(fired, neuron, currents, scale=scale, bias=None if offset is None else offset.flatten(0, 1))
        return fired


@cache
def available() -> bool:
    """Whether this PyTorch has the operators, and they compute correct results."""
    weight = torch.linspace(-1, 1, 4 * 16 * 9, dtype=torch.float64, device="cpu").view(4, 16, 3, 3)
    spikes = (torch.arange(2 * 16 * 4 * 4, device="cpu") % 3 == 0).view(1, 2, 4, 4, 16).to(torch.uint8)
    expected = F.conv2d(spikes[0].permute(0, 3, 1, 2).double(), weight, padding=1).permute(0, 2, 3, 1)
    try:
        found = OnednnSpikeConv2d(weight)(spikes)[0]
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False
    return bool((found - expected).abs().max() < 1e-5 * expected.std())
