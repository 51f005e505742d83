"""Integrate-and-fire neurons as pure functions over [T, ...]; the membrane lives inside one call.

Per SNN time step n:

    start    v[-1] = v_reset (0 for a soft reset) + initial_charge v_threshold
    charge   IF    h[n] = v[n-1] + x[n]
             LIF   h[n] = v[n-1] + (x[n] - (v[n-1] - v_reset)) / tau        decayed input
                   h[n] = v[n-1] - (v[n-1] - v_reset) / tau + x[n]          undecayed input
             PLIF  as LIF, with 1/tau = sigmoid(w) and w learned per layer (Fang et al., ICCV 2021)
    fire     s[n] = 1 if h[n] >= v_threshold else 0; if signed, s[n] = -1 where h[n] < 0 and s[0] + ... + s[n-1] > 0
    reset    hard  v[n] = s[n] v_reset + (1 - s[n]) h[n]        soft  v[n] = h[n] - s[n] v_threshold

A signed neuron takes back a spike that turned out to be too many (Hu et al., Fast-SNN, 2023, arXiv 2305.19868).

The order of arithmetic is spikingjelly's, so spikes and gradients of IF and LIF are the same bits.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sddpm.choices import check_choice
from sddpm.errors import UserError
from sddpm.neurons.surrogates import resolve_surrogate, spike

NEURONS = {
    "if": "integrate-and-fire, no leak (SDDPM)",
    "lif": "leaky integrate-and-fire with the fixed time constant tau",
    "plif": "leaky integrate-and-fire with a time constant learned per layer",
}


@dataclass(frozen=True, kw_only=True)
class Dynamics:
    """Everything that defines a neuron but its threshold and learned parameters.

    Args:
        neuron: "if", "lif" or "plif".
        v_reset: membrane after a spike (hard reset), or None to subtract the threshold (soft reset).
        tau: LIF's time constant in SNN time steps, >= 1; PLIF's initial one, > 1. Unused by IF.
        decay_input: whether the input is divided by tau too.
        detach_reset: keep the gradient from flowing through the reset.
        surrogate: a name of `SURROGATES`.
        surrogate_alpha: its inverse width; None for the surrogate's default.
        initial_charge: membrane at the start, in thresholds, on top of the rest potential. 1/2 makes an IF neuron with
            soft reset round instead of round down: of a constant input x in [0, v_threshold] it makes
            floor(T x / v_threshold + 1/2) spikes (Bu et al., ICLR 2022, arXiv 2303.04347).
        signed: spikes may be -1 too; for IF neurons with soft reset.

    Raises:
        UserError: an unknown name or a number out of range.
    """

    neuron: str = "if"
    v_reset: float | None = 0.0
    tau: float = 2.0
    decay_input: bool = True
    detach_reset: bool = False
    surrogate: str = "atan"
    surrogate_alpha: float | None = None
    initial_charge: float = 0.0
    signed: bool = False

    def __post_init__(self):
        check_choice("neuron", self.neuron, NEURONS)
        if self.neuron == "lif" and not self.tau >= 1:
            raise UserError(f"tau of a LIF neuron must be at least 1 time step, got {self.tau}")
        if self.neuron == "plif" and not self.tau > 1:
            raise UserError(f"the initial tau of a PLIF neuron must be above 1 (1/tau = sigmoid(w)), got {self.tau}")
        if not 0 <= self.initial_charge < 1:
            raise UserError(f"initial_charge must be at least 0 and below 1 threshold, got {self.initial_charge}")
        if self.signed and (self.neuron != "if" or self.v_reset is not None):
            raise UserError("signed spikes are for IF neurons with the soft reset: neuron 'if', v_reset None")
        object.__setattr__(self, "surrogate_alpha", resolve_surrogate(self.surrogate, self.surrogate_alpha))


def charge(x: Tensor, v: Tensor, dynamics: Dynamics, w: Tensor | None = None) -> Tensor:
    """The membrane h[n] before firing, from the input x[n] and the membrane v[n-1], all of one shape."""
    if dynamics.neuron == "if":
        return v + x
    rest = 0.0 if dynamics.v_reset is None else dynamics.v_reset
    if dynamics.neuron == "lif":
        if dynamics.decay_input:
            return v + (x - (v - rest)) / dynamics.tau
        return v - (v - rest) / dynamics.tau + x
    if w is None:
        raise UserError("a PLIF neuron needs its learned parameter w")
    leak = w.sigmoid()
    return v + (x - (v - rest)) * leak if dynamics.decay_input else v - (v - rest) * leak + x


def start_of_membrane(dynamics: Dynamics, v_threshold: float) -> float:
    """v[-1], the membrane before the first time step."""
    return (dynamics.v_reset or 0.0) + dynamics.initial_charge * v_threshold


def step(
    x: Tensor,
    v: Tensor,
    dynamics: Dynamics,
    *,
    v_threshold: float = 1.0,
    w: Tensor | None = None,
    fired: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One SNN time step: (spikes s[n], membrane v[n] after the reset, membrane h[n] before it).

    Of signed neurons `fired` is the sum of their spikes so far.
    """
    h = charge(x, v, dynamics, w)
    s = spike(h - v_threshold, dynamics.surrogate, dynamics.surrogate_alpha)
    if dynamics.signed:
        if fired is None:
            raise UserError("a signed neuron needs the sum of its spikes so far")
        s = s - (1.0 - spike(h, dynamics.surrogate, dynamics.surrogate_alpha)) * (fired > 0)
    r = s.detach() if dynamics.detach_reset else s
    v = h - r * v_threshold if dynamics.v_reset is None else r * dynamics.v_reset + (1.0 - r) * h
    return s, v, h


def steps(
    x: Iterable[Tensor], dynamics: Dynamics, *, v_threshold: float = 1.0, w: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """All time steps of currents x, as `step` returns them one by one."""
    v = fired = None
    for current in x:
        v = torch.full_like(current, start_of_membrane(dynamics, v_threshold)) if v is None else v
        fired = torch.zeros_like(current) if fired is None else fired
        s, v, h = step(current, v, dynamics, v_threshold=v_threshold, w=w, fired=fired)
        fired = fired + s.detach() if dynamics.signed else fired
        yield s, v, h


def _stack(steps: list[Tensor]) -> Tensor:
    """`torch.stack` that keeps the memory order of the steps: what was channels last stays so, without a copy."""
    strides = steps[0].stride()
    order = sorted(range(len(strides)), key=lambda dim: -strides[dim])
    back = sorted(range(len(order)), key=order.__getitem__)
    return torch.stack([step.permute(order) for step in steps]).permute(0, *(dim + 1 for dim in back))


def multi_step(x: Tensor, dynamics: Dynamics, *, v_threshold: float = 1.0, w: Tensor | None = None) -> Tensor:
    """Spikes of a layer of neurons over all T time steps, step by step in PyTorch: the definition.

    Args:
        x: input currents [T, ...], floating point.
        dynamics: what neuron.
        v_threshold: firing threshold.
        w: PLIF's learned scalar, [] or broadcastable to x[0].

    Returns:
        Spikes [T, ...], 0 or 1 (or -1, if signed), in the dtype and memory order of x. Membranes are float32 for
        bfloat16 and float16.

    Raises:
        UserError: x is not a floating-point tensor of at least one time step, or a PLIF neuron lacks w.
    """
    if not x.is_floating_point() or x.dim() == 0 or x.shape[0] == 0:
        shape = list(x.shape)
        raise UserError(f"a neuron needs floating-point currents [T, ...] with T >= 1, got {x.dtype} {shape}")
    currents = x if x.dtype in (torch.float32, torch.float64) else x.float()
    spikes = [s for s, _, _ in steps(currents, dynamics, v_threshold=v_threshold, w=w)]
    return _stack(spikes).to(x.dtype)
