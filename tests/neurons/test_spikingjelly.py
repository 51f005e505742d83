"""The definition is bit-identical to spikingjelly for IF and LIF, spikes and gradients."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sddpm.neurons import Dynamics
from sddpm.neurons.functional import multi_step
from tests.helpers.neuron_oracle import spikes_and_gradients, spikingjelly_node

SHARED_SURROGATES = ["atan", "sigmoid", "rectangle", "piecewise_quadratic"]


def currents(shape, dtype, seed=0, scale=2.0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype) * scale


def assert_identical(dynamics: Dynamics, v_threshold: float, x: torch.Tensor) -> None:
    node = spikingjelly_node(dynamics, v_threshold)
    theirs = spikes_and_gradients(node, x)
    ours = spikes_and_gradients(lambda leaf: multi_step(leaf, dynamics, v_threshold=v_threshold), x)
    for name, a, b in zip(("spikes", "gradient"), ours, theirs, strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("surrogate", SHARED_SURROGATES)
@pytest.mark.parametrize("neuron", ["if", "lif"])
def test_identical_in_every_mode(neuron, surrogate, dtype):
    x = currents((4, 3, 8, 8), dtype)
    for v_reset, detach, decay, v_threshold in itertools.product(
        (0.0, None, -0.3), (False, True), (False, True), (1.0, 0.7)
    ):
        dynamics = Dynamics(
            neuron=neuron,
            v_reset=v_reset,
            tau=1.7,
            decay_input=decay,
            detach_reset=detach,
            surrogate=surrogate,
        )
        assert_identical(dynamics, v_threshold, x)
        node = spikingjelly_node(dynamics, v_threshold)
        assert 0.05 < float(node(x).mean()) < 0.95  # the comparison has something to compare


@settings(deadline=None, max_examples=150)
@given(
    shape=st.lists(st.integers(1, 5), min_size=0, max_size=4),
    T=st.integers(1, 9),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    neuron=st.sampled_from(["if", "lif"]),
    v_threshold=st.floats(0.05, 4.0),
    v_reset=st.none() | st.floats(-1.0, 0.5),
    tau=st.floats(1.01, 20.0),
    decay_input=st.booleans(),
    detach_reset=st.booleans(),
    surrogate=st.sampled_from(SHARED_SURROGATES),
    alpha=st.floats(0.3, 6.0),
    scale=st.floats(0.1, 8.0),
    seed=st.integers(0, 2**31),
)
def test_identical_by_hypothesis(
    shape, T, dtype, neuron, v_threshold, v_reset, tau, decay_input, detach_reset, surrogate, alpha, scale, seed
):
    dynamics = Dynamics(
        neuron=neuron,
        v_reset=v_reset,
        tau=tau,
        decay_input=decay_input,
        detach_reset=detach_reset,
        surrogate=surrogate,
        surrogate_alpha=alpha,
    )
    assert_identical(dynamics, v_threshold, currents((T, *shape), dtype, seed, scale))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("surrogate", SHARED_SURROGATES)
def test_plif_spikes_and_gradients(surrogate, dtype):
    """PLIF: spikes and the gradient of x are the same bits; that of w to 1e-5 (float32) or 1e-12 of the summed
    magnitude of its terms, because each implementation sums them in its own order."""
    x = currents((4, 3, 8, 8), dtype)
    for v_reset, detach, decay in itertools.product((0.0, None, -0.3), (False, True), (False, True)):
        dynamics = Dynamics(
            neuron="plif", v_reset=v_reset, tau=1.7, decay_input=decay, detach_reset=detach, surrogate=surrogate
        )
        node = spikingjelly_node(dynamics, 0.8)
        assert node.w.item() == pytest.approx(-math.log(0.7))
        spikes, gx, gw = spikes_and_gradients(node, x, node.w)
        w = node.w.detach().clone().requires_grad_()
        ours = spikes_and_gradients(lambda leaf, d=dynamics, w=w: multi_step(leaf, d, v_threshold=0.8, w=w), x, w)
        assert torch.equal(ours[0], spikes)
        assert torch.equal(ours[1], gx)
        assert gw != 0
        size = (gx.abs() * x.abs()).sum().item()
        assert abs(ours[2] - gw).item() <= (1e-5 if dtype == torch.float32 else 1e-12) * size
