"""A convolution over binary spikes, and the layer of neurons behind it. Everything is channels last.

Spikes are bytes, 0 or 1, [T, B, H, W, I]; currents are float32 [T, B, H', W', O], with H' = H / stride (rounded up) or
2 H if the spikes are repeated 2 x 2 first.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sddpm.neurons import SpikingNeuron, multi_step


class SpikeConv2d:
    """current[n] = scale[n] conv(spikes[n], weight) + bias[n], a same-padded convolution.

    Args:
        weight: [O, I, k, k], k odd, float64 or float32, with the batch norm behind it folded in.
        bias: [O], or [S, O] with S = 1 or T; None for zero.
        scale: [T] (temporal modulation), or None for 1.
        stride: 1 or 2.
        upsample: whether spikes are repeated 2 x 2 (nearest neighbour) first.
        precision: "exact" (errors no larger than those of a float32 convolution) or "fast".
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        scale: Tensor | None = None,
        stride: int = 1,
        upsample: bool = False,
        precision: str = "exact",
    ):
        self.out_channels, self.in_channels = weight.shape[:2]
        self.padding = weight.shape[-1] // 2
        self.stride, self.upsample, self.precision = stride, upsample, precision
        zero = weight.new_zeros(1, self.out_channels)
        self.bias = (zero if bias is None else bias.view(-1, self.out_channels)).float().unsqueeze(1)
        self.scale = None if scale is None else scale.float()
        self.weight = weight.float().contiguous(memory_format=torch.channels_last)

    def __call__(self, spikes: Tensor, *, channel_bias: Tensor | None = None, add: Tensor | None = None) -> Tensor:
        """Currents.

        Args:
            spikes: uint8 [T, B, H, W, I], 0 or 1, contiguous.
            channel_bias: float32 [S, O] or [S, B, O] with S = 1 or T, added to the bias; None for zero.
            add: float32 [T, B, H', W', O], added to the currents; None for zero.

        Returns:
            float32 [T, B, H', W', O], contiguous.
        """
        return self._currents(spikes, channel_bias, add)

    def fire(self, spikes: Tensor, neuron: SpikingNeuron, *, channel_bias: Tensor | None = None) -> Tensor:
        """Spikes of the layer of neurons that the currents enter, uint8 [T, B, H', W', O], contiguous.

        Args:
            spikes: uint8 [T, B, H, W, I], 0 or 1, contiguous.
            neuron: its dynamics, threshold and w are read at every call.
            channel_bias: as in a call.
        """
        current = self._currents(spikes, channel_bias, None)
        return multi_step(current, neuron.dynamics, v_threshold=neuron.v_threshold, w=neuron.w).to(torch.uint8)

    def _currents(self, spikes: Tensor, channel_bias: Tensor | None, add: Tensor | None) -> Tensor:
        images = spikes.flatten(0, 1).permute(0, 3, 1, 2).float()
        if self.upsample:
            images = F.interpolate(images, scale_factor=2, mode="nearest")
        out = F.conv2d(images, self.weight, stride=self.stride, padding=self.padding)
        out = out.permute(0, 2, 3, 1).unflatten(0, spikes.shape[:2])
        if self.scale is not None:
            out = out * self.scale.view(-1, 1, 1, 1, 1)
        bias = self.bias
        if channel_bias is not None:
            bias = bias + (channel_bias.unsqueeze(1) if channel_bias.dim() == 2 else channel_bias)
        out = out + bias[:, :, None, None]
        return out.contiguous() if add is None else out.add_(add).contiguous()
