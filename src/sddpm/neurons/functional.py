"""Integrate-and-fire neurons as pure functions over [T, ...]; the membrane is local to one call.

Per SNN time step n:

    start    v[-1] = v_reset (0 for a soft reset) + initial_charge v_threshold
    charge   IF    h[n] = v[n-1] + x[n]
             LIF   h[n] = v[n-1] + (x[n] - (v[n-1] - v_reset)) / tau        decayed input
                   h[n] = v[n-1] - (v[n-1] - v_reset) / tau + x[n]          undecayed input
             PLIF  as LIF, with 1/tau = sigmoid(w) and w learned per layer (Fang et al., ICCV 2021)
    fire     s[n] = 1 if h[n] >= v_threshold else 0; if signed, s[n] = -1 where h[n] < 0 and s[0] + ... + s[n-1] > 0
    reset    hard  v[n] = s[n] v_reset + (1 - s[n]) h[n]        soft  v[n] = h[n] - s[n] v_threshold

A signed neuron emits -1 to cancel a surplus spike (Hu et al., Fast-SNN, 2023, arXiv 2305.19868).

The order of arithmetic is spikingjelly's, so spikes and gradients of IF and LIF are bit-identical to it.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from sddpm.errors import UserError
from sddpm.neurons.definition import NEURONS as NEURONS
from sddpm.neurons.definition import Dynamics, State, Step, membrane_alone, register_neuron
from sddpm.neurons.definition import start_of_membrane as start_of_membrane
from sddpm.neurons.surrogates import spike


def charge_if(x: Tensor, v: Tensor, dynamics: Dynamics) -> Tensor:
    """h[n] of an IF neuron."""
    return v + x


def charge_lif(x: Tensor, v: Tensor, dynamics: Dynamics) -> Tensor:
    """h[n] of a LIF neuron."""
    rest = dynamics.v_reset or 0.0
    if dynamics.decay_input:
        return v + (x - (v - rest)) / dynamics.tau
    return v - (v - rest) / dynamics.tau + x


def charge_plif(x: Tensor, v: Tensor, dynamics: Dynamics, w: Tensor) -> Tensor:
    """h[n] of a PLIF neuron."""
    rest, leak = dynamics.v_reset or 0.0, w.sigmoid()
    return v + (x - (v - rest)) * leak if dynamics.decay_input else v - (v - rest) * leak + x


def fire(h: Tensor, dynamics: Dynamics, v_threshold: float | Tensor) -> Tensor:
    """Spikes s[n], 0 or 1, of the membrane h[n], differentiable by the surrogate."""
    return spike(h - v_threshold, dynamics.surrogate, dynamics.surrogate_alpha)


def reset(h: Tensor, s: Tensor, dynamics: Dynamics, v_threshold: float | Tensor) -> Tensor:
    """The membrane v[n] after the spikes s[n]."""
    s = s.detach() if dynamics.detach_reset else s
    return h - s * v_threshold if dynamics.v_reset is None else s * dynamics.v_reset + (1.0 - s) * h


def charging(charge: Callable[..., Tensor]) -> Step:
    """The step of a neuron whose state is only its membrane, from its charge function (x, v, dynamics, **parameters) ->
    h."""

    def step(x: Tensor, v: Tensor, dynamics: Dynamics, v_threshold: float, **parameters: Tensor):
        h = charge(x, v, dynamics, **parameters)
        s = fire(h, dynamics, v_threshold)
        return s, reset(h, s, dynamics, v_threshold), h

    return step


class Signed(NamedTuple):
    """The state of a neuron whose spikes may be -1: its membrane, and the sum of its spikes so far."""

    v: Tensor
    fired: Tensor


def start_if(x: Tensor, dynamics: Dynamics, v_threshold: float) -> State:
    """The initial state of an IF neuron, whose spikes may be signed."""
    v = membrane_alone(x, dynamics, v_threshold)
    return Signed(v, torch.zeros_like(x)) if dynamics.signed else v


def step_if(x: Tensor, state: State, dynamics: Dynamics, v_threshold: float) -> tuple[Tensor, State, Tensor]:
    """One time step of an IF neuron, whose spikes may be signed."""
    if not isinstance(state, Signed):
        return charging(charge_if)(x, state, dynamics, v_threshold)
    h = charge_if(x, state.v, dynamics)
    s = fire(h, dynamics, v_threshold)
    s = s - (1.0 - fire(h, dynamics, 0.0)) * (state.fired > 0)
    return s, Signed(reset(h, s, dynamics, v_threshold), state.fired + s.detach()), h


def check_lif(dynamics: Dynamics) -> None:
    """Raise `UserError` if tau is invalid for LIF."""
    if not dynamics.tau >= 1:
        raise UserError(f"tau of a LIF neuron must be at least 1 time step, got {dynamics.tau}")


def check_plif(dynamics: Dynamics) -> None:
    """Raise `UserError` if tau does not give an initial w."""
    if not dynamics.tau > 1:
        raise UserError(f"the initial tau of a PLIF neuron must be above 1 (1/tau = sigmoid(w)), got {dynamics.tau}")


register_neuron("if", step_if, start_if, description="integrate-and-fire, no leak (SDDPM)", signed=True)
register_neuron(
    "lif",
    charging(charge_lif),
    description="leaky integrate-and-fire with the fixed time constant tau",
    check=check_lif,
    leaks=1,
)
register_neuron(
    "plif",
    charging(charge_plif),
    description="leaky integrate-and-fire with a time constant learned per layer",
    parameters={"w": lambda dynamics: -math.log(dynamics.tau - 1.0)},
    check=check_plif,
    leaks=1,
)


def check_tensors(parameters: Mapping[str, object]) -> None:
    """Raise `TypeError` for a keyword that is not a learned parameter, such as a misspelt one."""
    for name, value in parameters.items():
        if not isinstance(value, Tensor | None):
            raise TypeError(
                f"{name} is neither an argument of a neuron nor a tensor with one of its learned parameters"
            )


def _learned(dynamics: Dynamics, parameters: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    """The learned parameters of this neuron among those of a call. Raises `UserError` for a missing one."""
    check_tensors(parameters)
    learned = {name: parameters.get(name) for name in dynamics.definition.parameters}
    if missing := [name for name, value in learned.items() if value is None]:
        raise UserError(f"a {dynamics.neuron.upper()} neuron needs its learned parameter {missing[0]}")
    return learned  # type: ignore[return-value]


def step(
    x: Tensor, state: State, dynamics: Dynamics, *, v_threshold: float = 1.0, **parameters: Tensor | None
) -> tuple[Tensor, State, Tensor]:
    """One SNN time step: (spikes s[n], state after the reset, membrane h[n] before it).

    Args:
        x: input current x[n].
        state: of the previous time step; for IF, LIF and PLIF only the membrane v[n-1], of the shape of x.
        dynamics: the neuron.
        v_threshold: firing threshold.
        parameters: learned parameters, by name; PLIF has w. Parameters of other neurons are ignored.

    Raises:
        UserError: a learned parameter is missing.
    """
    return dynamics.definition.step(x, state, dynamics, v_threshold, **_learned(dynamics, parameters))


def steps(
    x: Iterable[Tensor],
    dynamics: Dynamics,
    *,
    v_threshold: float = 1.0,
    state: State | None = None,
    **parameters: Tensor | None,
) -> Iterator[tuple[Tensor, State, Tensor]]:
    """The results of `step` for all time steps of the currents x, from `state` (None: the neuron's initial state)."""
    definition, learned = dynamics.definition, _learned(dynamics, parameters)
    for current in x:
        state = definition.start(current, dynamics, v_threshold) if state is None else state
        s, state, h = definition.step(current, state, dynamics, v_threshold, **learned)
        yield s, state, h


def _stack(spikes: list[Tensor]) -> Tensor:
    """`torch.stack` that keeps the memory layout of its parts: channels-last tensors stay so, without a copy."""
    strides = spikes[0].stride()
    order = sorted(range(len(strides)), key=lambda dim: -strides[dim])
    back = sorted(range(len(order)), key=order.__getitem__)
    return torch.stack([each.permute(order) for each in spikes]).permute(0, *(dim + 1 for dim in back))


def multi_step(x: Tensor, dynamics: Dynamics, *, v_threshold: float = 1.0, **parameters: Tensor | None) -> Tensor:
    """Spikes of a layer of neurons over all T time steps, step by step in plain PyTorch. All kernels are defined by
    this function.

    Args:
        x: input currents [T, ...], floating point.
        dynamics: the neuron.
        v_threshold: firing threshold.
        parameters: learned parameters, by name, [] or broadcastable to x[0]; PLIF's is w.

    Returns:
        Spikes [T, ...], 0 or 1 (or -1, if signed), in the dtype and memory layout of x. Membranes are float32 for
        bfloat16 and float16.

    Raises:
        UserError: x is not a floating-point tensor of at least one time step, or a learned parameter is missing.
    """
    if not x.is_floating_point() or x.dim() == 0 or x.shape[0] == 0:
        shape = list(x.shape)
        raise UserError(f"a neuron needs floating-point currents [T, ...] with T >= 1, got {x.dtype} {shape}")
    return multi_step_from(None, x, dynamics, v_threshold=v_threshold, **parameters)[0]


def multi_step_from(
    state: State | None, x: Tensor, dynamics: Dynamics, *, v_threshold: float = 1.0, **parameters: Tensor | None
) -> tuple[Tensor, State]:
    """Spikes [T, ...] as in `multi_step`, from a state (None: the neuron's initial state), and the final state."""
    currents = x if x.dtype in (torch.float32, torch.float64) else x.float()
    spikes = []
    for s, after, _ in steps(currents, dynamics, v_threshold=v_threshold, state=state, **parameters):
        spikes.append(s)
        state = after
    assert state is not None
    return _stack(spikes).to(x.dtype), state
