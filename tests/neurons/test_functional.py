"""Exact membrane traces by hand, memory layout, half precision, statelessness and bad input."""

import pytest
import torch

from sddpm.errors import UserError
from sddpm.neurons import Dynamics, SpikingNeuron
from sddpm.neurons.functional import multi_step, step


def trace(currents, dynamics, v_threshold=1.0, w=None):
    """Membranes before and after the reset, and spikes, of one neuron (numbers that are exact in binary)."""
    v = torch.tensor(dynamics.v_reset or 0.0, dtype=torch.float64)
    before, after, spikes = [], [], []
    for x in currents:
        s, v, h = step(torch.tensor(x, dtype=torch.float64), v, dynamics, v_threshold=v_threshold, w=w)
        before.append(h.item())
        after.append(v.item())
        spikes.append(s.item())
    x = torch.tensor(currents, dtype=torch.float64)
    assert multi_step(x, dynamics, v_threshold=v_threshold, w=w).tolist() == spikes
    return before, after, spikes


def test_if_hard_reset():
    assert trace([0.5, 0.25, 0.5, 0.75], Dynamics()) == ([0.5, 0.75, 1.25, 0.75], [0.5, 0.75, 0.0, 0.75], [0, 0, 1, 0])


def test_if_fires_exactly_at_the_threshold():
    assert trace([0.5, 0.5, 0.5], Dynamics()) == ([0.5, 1.0, 0.5], [0.5, 0.0, 0.5], [0, 1, 0])


def test_if_soft_reset_keeps_the_rest():
    dynamics = Dynamics(v_reset=None)
    assert trace([2.5, 0.0, 0.25], dynamics) == ([2.5, 1.5, 0.75], [1.5, 0.5, 0.75], [1, 1, 0])


def test_if_starts_at_and_returns_to_v_reset():
    dynamics = Dynamics(v_reset=-0.5)
    assert trace([1.0, 0.75, 0.25], dynamics) == ([0.5, 1.25, -0.25], [0.5, -0.5, -0.25], [0, 1, 0])


def test_if_at_another_threshold():
    assert trace([0.5, 0.5], Dynamics(), v_threshold=0.5) == ([0.5, 0.5], [0.0, 0.0], [1, 1])


def test_lif_decayed_input():
    dynamics = Dynamics(neuron="lif", tau=4.0)
    assert trace([4.0, 2.0, 3.0], dynamics) == ([1.0, 0.5, 1.125], [0.0, 0.5, 0.0], [1, 0, 1])


def test_lif_undecayed_input():
    dynamics = Dynamics(neuron="lif", tau=4.0, decay_input=False)
    assert trace([0.5, 0.5, 0.5], dynamics) == ([0.5, 0.875, 1.15625], [0.5, 0.875, 0.0], [0, 0, 1])


def test_lif_leaks_towards_v_reset():
    dynamics = Dynamics(neuron="lif", tau=2.0, v_reset=-1.0)
    assert trace([4.0, 2.0, 0.0], dynamics) == ([1.0, 0.0, -0.5], [-1.0, 0.0, -0.5], [1, 0, 0])


def test_plif_is_lif_at_its_time_constant():
    w = torch.tensor(0.0)  # sigmoid(0) = 1/2, so tau = 2
    for decay in (True, False):
        expected = trace([1.0, 1.5, 2.0, -1.0], Dynamics(neuron="lif", tau=2.0, decay_input=decay))
        assert trace([1.0, 1.5, 2.0, -1.0], Dynamics(neuron="plif", decay_input=decay), w=w) == expected


def test_gradient_by_hand():
    """IF, hard reset, rectangle of width 1, x = (0.75, 1.0): h = (0.75, 1.75), s = (0, 1). The window (|u| < 1/2) is 1
    at the first step and 0 at the second. With the incoming gradient (3, 5): the second step passes nothing on."""
    x = torch.tensor([0.75, 1.0], requires_grad=True)
    spikes = multi_step(x, Dynamics(surrogate="rectangle"))
    assert torch.autograd.grad(spikes, x, torch.tensor([3.0, 5.0]))[0].tolist() == [3.0, 0.0]


@pytest.mark.parametrize(("detach", "expected"), [(True, [3.0, 5.0]), (False, [3.0 + 5.0 * -1.25, 5.0])])
def test_gradient_through_the_reset_by_hand(detach, expected):
    """x = (1.25, 0.75): h = (1.25, 0.75), s = (1, 0), both windows 1. Attached, ds[1]/dx[0] = d(h(1-s))/dh = (1-s) - h
    = -1.25; detached, it is 1 - s = 0."""
    x = torch.tensor([1.25, 0.75], requires_grad=True)
    spikes = multi_step(x, Dynamics(surrogate="rectangle", detach_reset=detach))
    assert torch.autograd.grad(spikes, x, torch.tensor([3.0, 5.0]))[0].tolist() == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs_in_float32(dtype):
    x = (torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(0)) * 2).to(dtype)
    for dynamics in (Dynamics(), Dynamics(neuron="lif", v_reset=None)):
        spikes = multi_step(x, dynamics)
        assert spikes.dtype == dtype
        assert torch.equal(spikes.float(), multi_step(x.float(), dynamics))


def test_channels_last_stays_without_a_copy():
    y = torch.randn(6, 5, 4, 3).to(memory_format=torch.channels_last).requires_grad_()
    flat = multi_step(y.unflatten(0, (2, 3)), Dynamics()).flatten(0, 1)
    assert flat.is_contiguous(memory_format=torch.channels_last)
    spikes = multi_step(y.unflatten(0, (2, 3)), Dynamics())
    assert spikes.flatten(0, 1).data_ptr() == spikes.data_ptr()
    expected = multi_step(y.detach().contiguous().unflatten(0, (2, 3)), Dynamics()).flatten(0, 1)
    assert torch.equal(flat, expected)
    (flat.square().sum() + (3 * flat).sum()).backward()  # the result used twice
    assert y.grad is not None and y.grad.abs().sum() > 0


def test_no_state_between_calls():
    layer = SpikingNeuron(Dynamics(neuron="lif"))
    x = torch.full((2, 3), 0.9)
    first = layer(x)
    assert torch.equal(layer(x), first)
    assert torch.equal(layer(torch.full((2, 7), 0.9)), torch.zeros(2, 7))
    assert not list(layer.buffers()) and not layer.state_dict()


def test_module_threshold_can_be_changed():
    layer = SpikingNeuron(Dynamics(), v_threshold=1.0)
    x = torch.tensor([0.75, 0.75])
    assert layer(x).tolist() == [0, 1]
    layer.v_threshold = 0.75
    assert layer(x).tolist() == [1, 1]
    layer.v_threshold = 2.0
    assert layer(x).tolist() == [0, 0]


def test_plif_module_starts_at_tau():
    layer = SpikingNeuron(Dynamics(neuron="plif", tau=5.0))
    assert 1 / layer.w.sigmoid().item() == pytest.approx(5.0)
    layer(torch.rand(4, 8)).sum().backward()
    assert layer.w.grad is not None and layer.w.grad != 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neuron": "izhikevich"}, "plif"),
        ({"neuron": "lif", "tau": 0.5}, "at least 1"),
        ({"neuron": "lif", "tau": float("nan")}, "at least 1"),
        ({"neuron": "plif", "tau": 1.0}, "above 1"),
        ({"surrogate": "box"}, "rectangle"),
        ({"surrogate_alpha": 0.0}, "above 0"),
    ],
)
def test_bad_dynamics(options, message):
    with pytest.raises(UserError, match=message):
        Dynamics(**options)


@pytest.mark.parametrize("x", [torch.zeros(3, 2, dtype=torch.int64), torch.zeros(0, 2), torch.tensor(1.0)])
def test_bad_currents(x):
    with pytest.raises(UserError, match="T >= 1"):
        multi_step(x, Dynamics())


def test_plif_needs_w():
    with pytest.raises(UserError, match="w"):
        multi_step(torch.zeros(2, 3), Dynamics(neuron="plif"))
