"""Spike convolutions and neurons in PyTorch's own operators: for GPUs, for float64, and for bfloat16.

The interface is that of `sddpm.inference.kernels`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sddpm.neurons import SpikingNeuron, multi_step


def fire(neuron: SpikingNeuron, parts: list[Tensor]) -> Tensor:
    """Spikes, uint8 [T, B, H, W, C], of the concatenation of currents [1 or T, B, H, W, C_i], which is never made."""
    T = max(part.shape[0] for part in parts)
    widths = [part.shape[-1] for part in parts]
    spikes = torch.empty(T, *parts[0].shape[1:-1], sum(widths), dtype=torch.uint8, device=parts[0].device)
    for part, out in zip(parts, spikes.split(widths, dim=-1), strict=True):
        currents = part.expand(T, *part.shape[1:])
        out.copy_(multi_step(currents, neuron.dynamics, v_threshold=neuron.v_threshold, w=neuron.w))
    return spikes


class TorchSpikeConv2d:
    """current[n] = scale[n] conv(spikes[n], weight) + bias[n], the product in `dtype`, the rest in `current_dtype`."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        scale: Tensor | None = None,
        stride: int = 1,
        upsample: bool = False,
        dtype: torch.dtype,
        current_dtype: torch.dtype,
    ):
        self.stride, self.upsample, self.current_dtype = stride, upsample, current_dtype
        self.weight = weight.to(dtype).contiguous(memory_format=torch.channels_last)
        bias = weight.new_zeros(1, len(weight)) if bias is None else bias
        self.bias = bias.to(current_dtype).view(-1, 1, 1, 1, len(weight))
        self.scale = None if scale is None else scale.to(current_dtype).view(-1, 1, 1, 1, 1)

    def __call__(self, spikes: Tensor, *, channel_bias: Tensor | None = None, add: Tensor | None = None) -> Tensor:
        """Currents [T, B, H', W', O] of spikes, uint8 [T, B, H, W, I]; `channel_bias` [S, O] and `add` are added."""
        images = spikes.flatten(0, 1).permute(0, 3, 1, 2).to(self.weight.dtype)
        if self.upsample:
            images = F.interpolate(images, scale_factor=2, mode="nearest")
        out = F.conv2d(images, self.weight, stride=self.stride, padding=self.weight.shape[-1] // 2)
        out = out.permute(0, 2, 3, 1).unflatten(0, spikes.shape[:2]).to(self.current_dtype)
        if self.scale is not None:
            out = out * self.scale
        bias = self.bias if channel_bias is None else self.bias + channel_bias[:, None, None, None]
        return out + bias if add is None else (out + bias).add_(add)

    def fire(self, spikes: Tensor, neuron: SpikingNeuron, *, channel_bias: Tensor | None = None) -> Tensor:
        """Spikes, uint8 [T, B, H', W', O], of the layer of neurons that the currents enter."""
        return fire(neuron, [self(spikes, channel_bias=channel_bias)])
