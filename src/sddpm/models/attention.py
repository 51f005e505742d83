"""Self-attention among spikes (Spikformer; Zhou et al., ICLR 2023, arXiv 2209.15425, section 4.2).

Queries, keys and values are spikes, so their products are counts: no multiplications and no softmax are needed.
"""

import math

import torch
from torch import Tensor, nn

from sddpm.models.batch_norm import StepBatchNorm2d
from sddpm.models.blocks import MakeConv, MakeNeuron
from sddpm.models.spiking_conv import spiking_conv

HEAD_CHANNELS = 32
SPIKFORMER = 0.125 * 64  # Spikformer's scale is for 8 x 8 positions; for n positions it is this / n


class SpikeProduct(nn.Module):
    """scale (Q K^T) V of queries, keys and values [T, B, C, H, W], in heads of 32 channels (or their common divisor).

    Without a softmax, Q (K^T V) is the same product. It takes fewer operations where a head has fewer channels than
    there are positions. Sums of spikes are whole numbers, which float32 represents exactly, so the order does not
    change the result. The scale turns the sums into means over the positions; hardware would instead divide the
    threshold of the following neurons by it.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.head_channels = math.gcd(channels, HEAD_CHANNELS)

    def keys_and_values_first(self, positions: int) -> bool:
        """Whether K^T V is computed first, rather than Q K^T."""
        return self.head_channels < positions

    def macs(self, channels: int, positions: int) -> int:
        """Multiply-accumulates for one image and time step, if queries, keys and values were not spikes."""
        return 2 * channels * positions * min(self.head_channels, positions)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        device = "cpu" if q.is_meta else q.device.type
        with torch.autocast(device, enabled=False):  # bfloat16 represents whole numbers exactly only up to 256
            q, k, v = (x if x.dtype == torch.float64 else x.float() for x in (q, k, v))
            return self.attend(q, k, v, self.keys_and_values_first(q[0, 0, 0].numel()))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, keys_and_values_first: bool) -> Tensor:
        """The product in either order, in the dtype of `q`."""
        size = q.shape[2:]
        # Transposed, [T, B, heads, channels of a head, positions]: V^T (K Q^T) or (V^T K) Q^T.
        q, k, v = (x.flatten(3).unflatten(2, (-1, self.head_channels)) for x in (q, k, v))
        k = k.transpose(-1, -2)
        out = (v @ k) @ q if keys_and_values_first else v @ (k @ q)
        return (out * (SPIKFORMER / q.shape[-1])).flatten(2, 3).unflatten(3, size[1:])


class SpikingSelfAttention(nn.Module):
    """neuron, 1x1 conv, norm, neuron: queries, keys and values; their product, neuron, 1x1 conv, norm; plus the input.

    [T, B, C, H, W] -> the same shape, real-valued. The scale of the last norm starts at 0, so the block starts as the
    identity.
    """

    def __init__(self, channels: int, make_conv: MakeConv, make_neuron: MakeNeuron):
        super().__init__()
        self.neuron1 = make_neuron()
        self.qkv = make_conv(channels, 3 * channels, 1)
        self.norm1 = StepBatchNorm2d(3 * channels)
        self.neuron2 = make_neuron()
        self.product = SpikeProduct(channels)
        self.neuron3 = make_neuron()
        self.projection = make_conv(channels, channels, 1)
        self.norm2 = StepBatchNorm2d(channels)
        nn.init.zeros_(self.norm2.weight)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.neuron2(self.norm1(spiking_conv(x, self.neuron1, self.qkv)))
        attended = self.product(*spikes.chunk(3, dim=2))
        return self.norm2(spiking_conv(attended, self.neuron3, self.projection), x)


class AttendedBlock(nn.Module):
    """A residual block followed by attention."""

    def __init__(self, block: nn.Module, attention: SpikingSelfAttention):
        super().__init__()
        self.block = block
        self.attention = attention

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return self.attention(self.block(x, emb))
