"""Quantised ReLUs by closed form, and IF neurons that count to the same levels; signed spikes by sums of currents."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sddpm.errors import UserError
from sddpm.neurons import Dynamics, QuantizedReLU, multi_step
from sddpm.neurons.functional import steps
from sddpm.neurons.quantized import quantize

CHARGED = {"v_reset": None, "initial_charge": 0.5}
# Numbers whose sums, products and quotients by these steps are exact in float64: ties are decided, not rounded.
EIGHTHS = st.integers(-80, 80).map(lambda n: n / 8)
STEPS = st.sampled_from([0.5, 1.0, 2.0, 4.0])


def levels_of(x, s, L):
    """clip(floor(x L / s + 1/2), 0, L), in numpy."""
    return np.clip(np.floor(np.asarray(x) * L / s + 0.5), 0, L)


@given(st.lists(EIGHTHS, min_size=1, max_size=20), STEPS, st.integers(1, 4))
def test_levels_are_those_of_the_closed_form(values, s, bits):
    L = 2**bits - 1
    got = quantize(torch.tensor(values, dtype=torch.float64), s, L).numpy()
    np.testing.assert_allclose(got, levels_of(values, s, L) * s / L, rtol=1e-15)


@given(st.lists(EIGHTHS, min_size=1, max_size=20), STEPS, st.integers(1, 16), st.booleans())
def test_a_charged_neuron_rounds_a_constant_current(values, s, T, signed):
    """s mean(spikes) = s clip(floor(x T / s + 1/2), 0, T) / T, exactly, also at ties."""
    x = torch.tensor(values, dtype=torch.float64).expand(T, -1)
    spikes = multi_step(x, Dynamics(**CHARGED, signed=signed), v_threshold=s)
    np.testing.assert_array_equal(spikes.sum(0).numpy(), levels_of(values, s, T))


def test_without_the_charge_it_rounds_down():
    x = torch.tensor([0.2, 0.45, 0.7, 0.95], dtype=torch.float64).expand(4, -1)
    assert multi_step(x, Dynamics(v_reset=None)).sum(0).tolist() == [0, 1, 2, 3]
    assert multi_step(x, Dynamics(**CHARGED)).sum(0).tolist() == [1, 2, 3, 4]


@given(st.lists(EIGHTHS, min_size=1, max_size=12), STEPS)
def test_signed_spikes_follow_the_sum_of_currents(currents, s):
    """The sum of spikes moves by at most one a step towards floor((x[0] + ... + x[n]) / s + 1/2), never below 0."""
    spikes = multi_step(torch.tensor(currents, dtype=torch.float64), Dynamics(**CHARGED, signed=True), v_threshold=s)
    count, expected = 0, []
    for total in np.cumsum(currents):
        move = int(np.clip(max(np.floor(total / s + 0.5), 0) - count, -1, 1))
        count += move
        expected.append(move)
    assert spikes.tolist() == expected


def test_a_spike_too_early_is_taken_back():
    x = torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64)
    assert multi_step(x, Dynamics(**CHARGED)).tolist() == [1, 0, 0]
    assert multi_step(x, Dynamics(**CHARGED, signed=True)).tolist() == [1, -1, 0]


def test_trace_of_a_charged_neuron():
    """Membranes by hand: 0.5 + 0.75 fires, 0.25 + 0.25 does not, 0.5 + 0.5 fires."""
    x = torch.tensor([0.75, 0.25, 0.5], dtype=torch.float64)
    trace = [(s.item(), v.item(), h.item()) for s, v, h in steps(x, Dynamics(**CHARGED))]
    assert trace == [(1, 0.25, 1.25), (0, 0.5, 0.5), (1, 0.0, 1.0)]


def test_hard_reset_starts_charged_above_its_rest():
    trace = list(steps(torch.zeros(1, dtype=torch.float64), Dynamics(v_reset=-1.0, initial_charge=0.25), v_threshold=2))
    assert trace[0][2].item() == -1.0 + 0.5


def test_kernels_leave_signed_neurons_to_the_definition(monkeypatch):
    dynamics = Dynamics(**CHARGED, signed=True)
    x = torch.randn(4, 2, 3, 5, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = []
    for choice in ("eager", "auto"):
        monkeypatch.setenv("SDDPM_NEURON_KERNEL", choice)
        spikes = multi_step(x, dynamics)
        found.append((spikes, *torch.autograd.grad(spikes.square().sum() + spikes.sum(), x)))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    monkeypatch.setenv("SDDPM_NEURON_KERNEL", "fused")
    with pytest.raises(UserError, match=r"spikes are signed|was not built"):
        multi_step(x, dynamics)


def test_gradient_of_a_spike_taken_back_is_the_bump_at_zero():
    """Two steps, detached reset: d s[1] / d x[1] = bump(h - 1) + bump(h), here with SDDPM's ATan at alpha = 2."""
    dynamics = Dynamics(**CHARGED, signed=True, detach_reset=True)
    x = torch.tensor([1.0, -0.75], dtype=torch.float64, requires_grad=True)
    spikes = multi_step(x, dynamics)
    assert spikes.tolist() == [1, -1]
    (grad,) = torch.autograd.grad(spikes[1], x)

    def bump(u):
        return 1 / (1 + (np.pi * u) ** 2)

    assert grad[1].item() == pytest.approx(bump(-0.25 - 1) + bump(-0.25), rel=1e-12)


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(1, 15), st.floats(0.3, 4))
def test_gradients_are_those_of_lsq(seed, L, s):
    """LSQ's equation 3 in units of levels, v = L x / s: dQ/ds = (round(v) - v) / L inside, 1 above, 0 below."""
    generator = torch.Generator().manual_seed(seed)
    x = (3 * torch.randn(1, 2, 3, 4, 5, generator=generator)).double().requires_grad_()
    upstream = torch.randn(x.shape, generator=generator).double()
    layer = QuantizedReLU(2, L).double()
    layer.log_step.data.fill_(np.log(s))
    (layer(x) * upstream).sum().backward()
    v = x.detach().numpy() * L / s
    inside, above = (v > 0) & (v < L), v >= L
    slope = np.where(inside, (np.floor(v + 0.5) - v) / L, above)
    expected = (upstream.numpy() * slope).sum() / np.sqrt(3 * 4 * 5 * L) * s  # by the chain rule of exp
    assert layer.log_step.grad is not None and x.grad is not None
    assert layer.log_step.grad.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    np.testing.assert_array_equal(x.grad.numpy(), upstream.numpy() * inside)


def test_the_step_is_learned():
    """From 2 to where the error of quantising uniform numbers of 0 to 1 is least: about 1."""
    layer = QuantizedReLU(2)
    optimizer = torch.optim.Adam(layer.parameters(), 0.05)
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        x = torch.rand(1, 4, 8, 8, 8, generator=generator)
        optimizer.zero_grad()
        (layer(x) - x).square().mean().backward()
        optimizer.step()
    assert layer.step.item() == pytest.approx(1, abs=0.15)


def test_bfloat16_is_rounded_in_float32():
    x = torch.randn(1, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    layer = QuantizedReLU(3)
    assert torch.equal(layer(x), layer(x.float()).bfloat16())


@pytest.mark.parametrize("bits", [0, 9, 2.0, True])
def test_bits_that_cannot_be(bits):
    with pytest.raises(UserError, match="activation_bits must be a whole number from 1 to 8"):
        QuantizedReLU(bits)


@pytest.mark.parametrize("levels", [0, 256, 4.0, True])
def test_levels_that_cannot_be(levels):
    with pytest.raises(UserError, match="activation_levels must be a whole number from 1 to 255"):
        QuantizedReLU(2, levels)


def test_bits_give_levels_unless_they_are_set():
    x = torch.linspace(-1, 3, 401, dtype=torch.float64)[None]
    assert [len(layer.double()(x).unique()) for layer in (QuantizedReLU(2), QuantizedReLU(2, 4))] == [4, 5]


@pytest.mark.parametrize("charge", [-0.1, 1.0])
def test_charges_that_cannot_be(charge):
    with pytest.raises(UserError, match="initial_charge must be at least 0 and below 1"):
        Dynamics(initial_charge=charge)


@pytest.mark.parametrize("options", [{}, {"neuron": "lif", "v_reset": None}])
def test_signed_spikes_need_a_soft_reset_without_leak(options):
    with pytest.raises(UserError, match="signed spikes need an IF neuron with soft reset"):
        Dynamics(signed=True, **options)
