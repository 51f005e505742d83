"""Spike convolutions in PyTorch's own operators, and the neurons after them: for GPUs, float64 and bfloat16.

The interface is that of `sddpm.inference.kernels`, but spikes may have another dtype than uint8: for example the dtype
of the convolution, if a conversion would cost more than it saves.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from sddpm.models.kernels.fused_layers import affine_add, affine_fire
from sddpm.neurons import SpikingNeuron


@contextmanager
def without_tf32() -> Iterator[None]:
    """True float32 convolutions: on GPUs PyTorch computes them in TF32 by default, with 10 bits of fraction."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def fire(neuron: SpikingNeuron, parts: list[Tensor], dtype: torch.dtype = torch.uint8) -> Tensor:
    """Spikes [T, B, H, W, C] of the concatenation of currents [1 or T, B, H, W, C_i], without making it."""
    T = max(part.shape[0] for part in parts)
    widths = [part.shape[-1] for part in parts]
    spikes = torch.empty(T, *parts[0].shape[1:-1], sum(widths), dtype=dtype, device=parts[0].device)
    for part, out in zip(parts, spikes.split(widths, dim=-1), strict=True):
        currents = part.expand(T, *part.shape[1:])
        affine_fire(currents, neuron, out=out)
    return spikes


class TorchSpikeConv2d:
    """current[n] = scale[n] conv(spikes[n], weight) + bias[n], convolved in `dtype`, returned in `current_dtype`."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        scale: Tensor | None = None,
        stride: int = 1,
        upsample: bool = False,
        dtype: torch.dtype = torch.float32,
        current_dtype: torch.dtype = torch.float32,
        bias_dtype: torch.dtype = torch.float32,
    ):
        self.stride, self.upsample, self.current_dtype = stride, upsample, current_dtype
        self.weight = weight.to(dtype).contiguous(memory_format=torch.channels_last)
        self.bias = None if bias is None else bias.to(bias_dtype).view(-1, 1, len(weight))
        self.scale = None if scale is None else scale.to(bias_dtype).view(-1, 1)

    def __call__(self, spikes: Tensor, *, channel_bias: Tensor | None = None, add: Tensor | None = None) -> Tensor:
        """Currents [T, B, H', W', O] of spikes [T, B, H, W, I]; `channel_bias` [S, O] and `add` are added."""
        return affine_add(self._conv(spikes), gain=self.scale, offset=self._offset(channel_bias), add=add)

    def fire(self, spikes: Tensor, neuron: SpikingNeuron, *, channel_bias: Tensor | None = None) -> Tensor:
        """Spikes [T, B, H', W', O], in the dtype of `spikes`, of the layer of neurons that receives the currents."""
        offset = self._offset(channel_bias)
        return affine_fire(self._conv(spikes), neuron, gain=self.scale, offset=offset, dtype=spikes.dtype)

    def _conv(self, spikes: Tensor) -> Tensor:
        images = spikes.flatten(0, 1).permute(0, 3, 1, 2).to(self.weight.dtype)
        if self.upsample:
            images = F.interpolate(images, scale_factor=2, mode="nearest")
        out = F.conv2d(images, self.weight, stride=self.stride, padding=self.weight.shape[-1] // 2)
        return out.permute(0, 2, 3, 1).contiguous().unflatten(0, spikes.shape[:2]).to(self.current_dtype)

    def _offset(self, channel_bias: Tensor | None) -> Tensor | None:
        """[S, 1, O]"""
        if channel_bias is None or self.bias is None:
            return self.bias if channel_bias is None else channel_bias.unsqueeze(1)
        return self.bias + channel_bias.unsqueeze(1)
