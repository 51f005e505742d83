"""Every layer of a compiled network against the eager one in float64.

One flipped spike in an untrained network moves everything behind it by a quarter, so every layer is fed the spikes of
the eager network in float64, and the currents that it makes of them are compared with the eager network's.
"""

import copy
from dataclasses import dataclass, field

import torch

from sddpm.inference.arithmetic import Arithmetic
from sddpm.inference.network import FoldedUNet

TOLERANCE = 2e-5  # of the currents' deviation, as of float32 in the eager network


@dataclass(frozen=True)
class Feeding(Arithmetic):
    """Hands the currents and spikes of each layer of neurons to `feed`, and on what that returns."""

    names: dict = field(default_factory=dict)  # id(neuron): name
    truth: dict = field(default_factory=dict)  # name: (currents, spikes), float64 [T, B, C, H, W]
    errors: dict = field(default_factory=dict)  # name: error of the currents, in their deviations
    flips: dict = field(default_factory=dict)  # name: share of spikes that differ

    def feed(self, neuron, currents, fired):
        raise NotImplementedError

    def fire(self, neuron, parts):
        T = max(part.shape[0] for part in parts)
        currents = torch.cat([part.expand(T, *part.shape[1:]) for part in parts], dim=-1)
        return self.feed(neuron, currents, super().fire(neuron, parts))

    def spike_conv(self, folded, **options):
        conv = super().spike_conv(folded, **options)
        conv.fire = lambda spikes, neuron, *, channel_bias: self.feed(
            neuron,
            conv(spikes, channel_bias=channel_bias),
            type(conv).fire(conv, spikes, neuron, channel_bias=channel_bias),
        )
        return conv


@dataclass(frozen=True)
class Fed(Feeding):
    """Compares what reaches each layer of neurons with the truth, and hands on the true spikes."""

    def feed(self, neuron, currents, fired):
        name = self.names[id(neuron)]
        expected, spikes = (x.permute(0, 1, 3, 4, 2) for x in self.truth[name])
        assert currents.dtype == torch.float32 and fired.dtype == torch.uint8 and fired.is_contiguous()
        self.errors[name] = ((currents - expected).abs().max() / expected.std()).item()
        self.flips[name] = (fired != spikes).double().mean().item()
        return spikes.to(torch.uint8).contiguous()


@torch.no_grad()
def assert_exact(exact, x, t):
    """Every layer of the compiled float32 form of `exact`, a float64 model, and its answer."""
    truth = {}
    for name, neuron in exact.neurons().items():
        neuron.register_forward_hook(lambda _m, inputs, out, name=name: truth.__setitem__(name, (inputs[0], out)))
    expected = exact(x.double(), t).sample
    for neuron in exact.neurons().values():
        neuron._forward_hooks.clear()
    single = copy.deepcopy(exact).float()
    fed = Fed(x.device, torch.float32, "exact", {id(neuron): name for name, neuron in single.neurons().items()}, truth)
    actual = FoldedUNet(single, fed)(x.float(), t)
    assert set(fed.errors) == set(truth)
    assert max(fed.errors.values()) < TOLERANCE, max(fed.errors, key=fed.errors.__getitem__)
    assert max(fed.flips.values()) < 2e-3  # the same but for neurons at the very threshold
    assert ((actual.double() - expected).abs().max() / expected.std()).item() < TOLERANCE
