"""The blocks of the spiking U-Net, folded. Currents and spikes are [T, B, H, W, C].

They mirror `sddpm.models.blocks` and share its neurons: thresholds and PLIF's w are read at every call.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from sddpm.inference.arithmetic import Arithmetic
from sddpm.inference.folding import affine, fold
from sddpm.models.blocks import (
    PureSpikingResBlock,
    SpikingDownsample,
    SpikingEncoder,
    SpikingResBlock,
    SpikingUpsample,
)
from sddpm.models.readout import PureSpikingReadout, SpikingReadout
from sddpm.neurons import SpikingNeuron


def spiking(neuron: nn.Module) -> SpikingNeuron:
    """`neuron` with its type narrowed: `support` has refused networks with other activations."""
    return cast(SpikingNeuron, neuron)


class Encoder:
    """[B, H, W, C_in] -> [T, B, H, W, C]. The current of the first neurons is the same at all time steps."""

    def __init__(self, encoder: SpikingEncoder, arithmetic: Arithmetic):
        self.T, self.neuron, self.fire = encoder.T, spiking(encoder.neuron), arithmetic.fire
        self.conv1 = arithmetic.dense().conv(fold(encoder.conv1, encoder.norm1))
        self.conv2 = arithmetic.spike_conv(fold(encoder.conv2, encoder.norm2))

    def __call__(self, x: Tensor) -> Tensor:
        current = self.conv1([x.unsqueeze(0)])
        return self.conv2(self.fire(self.neuron, [current.expand(self.T, -1, -1, -1, -1)]))


class ResBlock:
    """The parts [T, B, H, W, C_i] of a concatenation -> [T, B, H, W, C].

    The argument `channel_bias` [S, C] combines the bias of the diffusion step (`projection`) and the folded bias of the
    first convolution, `hidden_bias`.
    """

    def __init__(self, block: SpikingResBlock, arithmetic: Arithmetic):
        first = fold(block.conv1, block.norm1)
        self.hidden_bias, self.projection = first.bias, cast(nn.Linear, block.time_projection[1])
        self.neuron1, self.neuron2, self.fire = spiking(block.neuron1), spiking(block.neuron2), arithmetic.fire
        self.conv1 = arithmetic.spike_conv(first, bias=False)
        self.conv2 = arithmetic.spike_conv(fold(block.conv2, block.norm2))
        self.around: Callable[[list[Tensor], Tensor], Tensor] = lambda parts, spikes: parts[0]
        if isinstance(block.shortcut, nn.Identity):
            return
        folded = fold(block.shortcut)
        if isinstance(block, PureSpikingResBlock):
            over_spikes = arithmetic.spike_conv(folded)
            self.around = lambda parts, spikes: over_spikes(spikes)
        else:
            over_currents = arithmetic.dense().conv(folded)
            self.around = lambda parts, spikes: over_currents(parts)

    def __call__(self, parts: list[Tensor], channel_bias: Tensor) -> Tensor:
        spikes = self.fire(self.neuron1, parts)
        hidden = self.conv1.fire(spikes, self.neuron2, channel_bias=channel_bias)
        return self.conv2(hidden, add=self.around(parts, spikes))


class Resample:
    """[T, B, H, W, C] -> the same shape with H and W halved or doubled."""

    def __init__(self, layer: SpikingDownsample | SpikingUpsample, arithmetic: Arithmetic):
        self.neuron, self.fire = spiking(layer.neuron), arithmetic.fire
        self.conv = arithmetic.spike_conv(fold(layer.conv, layer.norm), upsample=isinstance(layer, SpikingUpsample))

    def __call__(self, x: Tensor) -> Tensor:
        return self.conv(self.fire(self.neuron, [x]))


class Readout:
    """[T, B, H, W, C] -> [B, H, W, C_out]."""

    def __init__(self, readout: SpikingReadout, T: int, arithmetic: Arithmetic):
        dense = arithmetic.dense()
        self.activate = dense.silu(*affine(readout.norm))
        self.conv = dense.conv(fold(readout.conv))
        self.out_conv = dense.conv(fold(readout.out_conv, readout.out_norm))
        self.read_out = dense.readout(_membrane_weights(readout.decay, T))

    def __call__(self, x: Tensor) -> Tensor:
        a = self.conv([self.activate(x)])
        return self.read_out(a, self.out_conv([a]))


class PureReadout:
    """[T, B, H, W, C] -> [B, H, W, C_out], the last convolution over spikes."""

    def __init__(self, readout: PureSpikingReadout, T: int, arithmetic: Arithmetic):
        self.neuron, self.fire = spiking(readout.neuron), arithmetic.fire
        gain, offset = affine(readout.norm)
        self.gain, self.offset = (
            gain.to(arithmetic.device, arithmetic.dtype),
            offset.to(arithmetic.device, arithmetic.dtype),
        )
        self.conv = arithmetic.spike_conv(fold(readout.conv))
        self.weights = _membrane_weights(readout.decay, T).tolist()

    def __call__(self, x: Tensor) -> Tensor:
        spikes = self.fire(self.neuron, [x * self.gain + self.offset])
        weighted = [weight * out for weight, out in zip(self.weights, self.conv(spikes), strict=True)]
        return sum(weighted[1:], weighted[0])


def _membrane_weights(decay: float, T: int) -> Tensor:
    """[T], powers in float32 as in `membrane_readout`."""
    return torch.pow(decay, torch.arange(T - 1, -1, -1, dtype=torch.float32, device="cpu"))
