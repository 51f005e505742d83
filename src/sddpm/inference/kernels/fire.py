"""Layers of neurons whose spikes are bytes."""

import torch
from torch import Tensor

from sddpm.neurons import SpikingNeuron, multi_step


def fire(neuron: SpikingNeuron, parts: list[Tensor]) -> Tensor:
    """Spikes, uint8 [T, B, H, W, C], of the concatenation of currents, which is never made.

    Args:
        neuron: its dynamics, threshold and w are read at every call.
        parts: float32 [1 or T, B, H, W, C_i], C_i summing to C.
    """
    T = max(part.shape[0] for part in parts)
    widths = [part.shape[-1] for part in parts]
    spikes = torch.empty(T, *parts[0].shape[1:-1], sum(widths), dtype=torch.uint8)
    for part, out in zip(parts, spikes.split(widths, dim=-1), strict=True):
        currents = part.expand(T, *part.shape[1:])
        out.copy_(multi_step(currents, neuron.dynamics, v_threshold=neuron.v_threshold, w=neuron.w))
    return spikes
