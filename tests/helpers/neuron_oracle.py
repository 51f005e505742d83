"""The same neuron built from spikingjelly, the oracle of these tests; and neurons of any dynamics to test."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from sddpm.neurons import SURROGATES, Dynamics


def spikingjelly_node(dynamics: Dynamics, v_threshold: float):
    """spikingjelly's multi-step neuron with the dynamics given (surrogates whose names agree, so no triangle)."""
    from spikingjelly.activation_based import neuron, surrogate

    bump = {
        "atan": surrogate.ATan,
        "sigmoid": surrogate.Sigmoid,
        "rectangle": surrogate.Rect,
        "piecewise_quadratic": surrogate.PiecewiseQuadratic,
    }[dynamics.surrogate](dynamics.surrogate_alpha)
    common = {
        "v_threshold": v_threshold,
        "v_reset": dynamics.v_reset,
        "surrogate_function": bump,
        "detach_reset": dynamics.detach_reset,
        "step_mode": "m",
    }
    if dynamics.neuron == "if":
        return neuron.IFNode(**common)
    if dynamics.neuron == "lif":
        return neuron.LIFNode(tau=dynamics.tau, decay_input=dynamics.decay_input, **common)
    return neuron.ParametricLIFNode(init_tau=dynamics.tau, decay_input=dynamics.decay_input, **common)


def spikes_and_gradients(function, x: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
    """function(x), then the gradients of x and the parameters for a fixed random incoming gradient."""
    leaf = x.detach().clone().requires_grad_()
    spikes = function(leaf)
    incoming = torch.randn(spikes.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return spikes.detach(), *torch.autograd.grad(spikes, (leaf, *parameters), incoming.to(spikes.dtype))


def any_dynamics() -> st.SearchStrategy[Dynamics]:
    """Without the sigmoid surrogate, whose last bits depend on the exponential."""
    return st.builds(
        Dynamics,
        neuron=st.sampled_from(["if", "lif", "plif"]),
        v_reset=st.none() | st.floats(-1.0, 0.5),
        tau=st.floats(1.01, 20.0),
        decay_input=st.booleans(),
        detach_reset=st.booleans(),
        surrogate=st.sampled_from(sorted(set(SURROGATES) - {"sigmoid"})),
        surrogate_alpha=st.floats(0.3, 6.0),
        initial_charge=st.just(0.0) | st.floats(0.0, 0.99),
    )
