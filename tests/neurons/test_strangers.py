"""Neurons and surrogates that the kernels do not know: the definition computes them."""

import logging

import pytest
import torch

from sddpm.errors import UserError
from sddpm.models.batch_norm import StepBatchNorm2d
from sddpm.models.layers import StepConv2d
from sddpm.models.spiking_conv import spiking_conv
from sddpm.neurons import Dynamics, SpikingNeuron, functional, kernels
from sddpm.neurons.kernels import cpu, ids
from tests.helpers.strangers import strangers

KINDS = [{"surrogate": "bell"}, {"neuron": "squared"}, {"neuron": "squared", "surrogate": "bell"}]


@pytest.fixture(autouse=True)
def registered():
    with strangers():
        yield


def spikes_and_gradients(function, x):
    leaf = x.clone().requires_grad_()
    out = function(leaf)
    out.backward(torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out))
    return out.detach(), leaf.grad


def check_neuron(kind):
    x = torch.randn(4, 3, 50, generator=torch.Generator().manual_seed(0))
    neuron = SpikingNeuron(Dynamics(**kind))
    found = spikes_and_gradients(neuron, x)
    expected = spikes_and_gradients(lambda x: functional.multi_step(x, neuron.dynamics, **neuron.learned), x)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert found[0].mean() > 0.05 and found[1].count_nonzero() > 0


def test_the_definition_runs_and_one_line_says_so(caplog):
    with caplog.at_level(logging.WARNING, logger="sddpm"):
        for kind in 2 * KINDS:
            check_neuron(kind)
    said = [record.getMessage() for record in caplog.records if "does not support" in record.getMessage()]
    assert len(said) == len(set(said)) == 2  # one line for each name, however often it is met


@pytest.mark.parametrize("kind", KINDS)
def test_kernels_that_are_asked_for_are_refused(kind, monkeypatch):
    neuron = SpikingNeuron(Dynamics(**kind))
    monkeypatch.setenv(kernels.VARIABLE, "fused")
    with pytest.raises(UserError, match=r"it does not support the (neuron 'squared'|surrogate 'bell')"):
        neuron(torch.ones(2, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_neither_kernel_takes_them(kind):
    assert "does not support" in (cpu.unsupported(torch.ones(2, 3), Dynamics(**kind), 1.0, None) or "")
    pytest.importorskip("triton")
    from sddpm.neurons.kernels import triton_neuron

    x = torch.ones(2, 3, device="cuda" if torch.cuda.is_available() else "cpu")
    assert triton_neuron.unsupported(x, Dynamics(), 1.0, None) is None
    assert "does not support" in (triton_neuron.unsupported(x, Dynamics(**kind), 1.0, None) or "")


def test_triton_has_numbers_for_every_surrogate_with_an_id():
    pytest.importorskip("triton")
    from sddpm.neurons.kernels import triton_neuron

    for surrogate in ids.SURROGATE_IDS:
        assert len(triton_neuron.surrogate_constants(Dynamics(surrogate=surrogate))) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_layers_in_training(kind, monkeypatch):
    torch.manual_seed(0)
    x = torch.randn(3, 2, 5, 6, 4).permute(0, 1, 4, 2, 3)
    norm, conv, neuron = StepBatchNorm2d(4), StepConv2d(4, 8, 3, padding=1), SpikingNeuron(Dynamics(**kind), 0.5)
    found = {}
    for choice in ("auto", "eager"):
        monkeypatch.setenv(kernels.VARIABLE, choice)
        found[choice] = spikes_and_gradients(lambda x: spiking_conv(x, neuron, conv, norm=norm), x)
    for a, b in zip(found["auto"], found["eager"], strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)
