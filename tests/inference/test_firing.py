"""Neurons with bytes for spikes against the definition, to the bit."""

import itertools

import pytest
import torch

from sddpm.inference.kernels import fire, firing
from sddpm.inference.kernels.firing import available, fire_into
from sddpm.neurons import Dynamics, SpikingNeuron, functional

built = pytest.mark.skipif(not available(), reason="the native kernels were not built")


def currents(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 1.5


def expected(neuron, x):
    return functional.multi_step(x, neuron.dynamics, v_threshold=neuron.v_threshold, w=neuron.w).to(torch.uint8)


@pytest.mark.parametrize("neuron", ["if", "lif", "plif"])
def test_equals_the_definition(neuron):
    for v_reset, decay, T in itertools.product((0.0, None, -0.3), (True, False), (1, 4, 9)):
        module = SpikingNeuron(Dynamics(neuron=neuron, v_reset=v_reset, tau=1.7, decay_input=decay), 0.7)
        for shape in ((T, 2, 3, 5, 24), (T, 1, 1, 1, 1), (T, 3, 4, 4, 600), (T, 1, 13, 7, 33)):
            x = currents(*shape)
            spikes = fire(module, [x])
            assert spikes.dtype == torch.uint8 and spikes.is_contiguous()
            assert torch.equal(spikes, expected(module, x))


def test_parts_of_a_concatenation_and_steps_that_are_the_same():
    module = SpikingNeuron(Dynamics(), 0.7)
    parts = [
        currents(4, 2, 5, 3, 20),
        currents(1, 2, 5, 3, 7, seed=1),
        currents(4, 2, 3, 5, 48, seed=2).transpose(2, 3),
    ]
    whole = torch.cat([part.expand(4, *part.shape[1:]) for part in parts], dim=-1)
    assert torch.equal(fire(module, parts), expected(module, whole))
    still = currents(1, 2, 5, 3, 16)
    assert torch.equal(fire(module, [still.expand(4, -1, -1, -1, -1)]), expected(module, still.repeat(4, 1, 1, 1, 1)))


@built
def test_scales_and_biases():
    module = SpikingNeuron(Dynamics(), 0.7)
    x, scale, bias = currents(4, 2, 3, 3, 40), torch.tensor([0.5, 1.0, 2.0, -1.0]), torch.randn(4, 40)
    for s, b in itertools.product((None, scale, scale[:1]), (None, bias, bias[:1])):
        affine = x if s is None else x * s.view(-1, 1, 1, 1, 1)
        affine = affine if b is None else affine + b[:, None, None, None]
        spikes = torch.empty(4, 2, 3, 3, 40, dtype=torch.uint8)
        fire_into(spikes, module, x, scale=s, bias=b)
        assert torch.equal(spikes, expected(module, affine))


@built
def test_any_number_of_threads_gives_the_same():
    module, x = SpikingNeuron(Dynamics(neuron="lif"), 0.4), currents(4, 3, 20, 20, 48)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(fire(module, [x, x]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_without_the_native_kernel(monkeypatch):
    monkeypatch.setattr(firing, "library", lambda: None)
    module = SpikingNeuron(Dynamics(), 0.7)
    parts = [currents(4, 2, 5, 3, 20), currents(1, 2, 5, 3, 7, seed=1)]
    whole = torch.cat([part.expand(4, *part.shape[1:]) for part in parts], dim=-1)
    assert torch.equal(fire(module, parts), expected(module, whole))
