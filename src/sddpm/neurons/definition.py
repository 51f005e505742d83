"""The definition of a neuron: a named entry of a registry, and the numbers that configure it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sddpm.errors import UserError
from sddpm.neurons.surrogates import resolve_surrogate
from sddpm.registry import register, registered

State = Tensor | tuple[Tensor, ...]
"""The state that a neuron keeps between SNN time steps: its membrane v, or a NamedTuple of tensors, each of the shape
of a current."""

Option = float | int | bool | str
Start = Callable[[Tensor, "Dynamics", float], State]
Step = Callable[..., tuple[Tensor, State, Tensor]]


def start_of_membrane(dynamics: "Dynamics", v_threshold: float) -> float:
    """v[-1], the membrane before the first time step."""
    return (dynamics.v_reset or 0.0) + dynamics.initial_charge * v_threshold


def membrane_alone(x: Tensor, dynamics: "Dynamics", v_threshold: float) -> Tensor:
    """The initial state of a neuron whose state is only its membrane: v[-1], of the shape of x."""
    return torch.full_like(x, start_of_membrane(dynamics, v_threshold))


def nothing_to_check(dynamics: "Dynamics") -> None:
    """Accept every number."""


@dataclass(frozen=True, kw_only=True)
class Neuron:
    """A kind of neuron, as `register_neuron` takes it. Neurons do not interact: every operation is elementwise."""

    description: str
    step: Step
    start: Start = membrane_alone
    parameters: Mapping[str, Callable[["Dynamics"], float]] = field(default_factory=dict)
    options: Mapping[str, Option] = field(default_factory=dict)
    check: Callable[["Dynamics"], None] = nothing_to_check
    leaks: int = 0
    signed: bool = False


NEURONS: dict[str, Neuron] = {}
RESERVED = ("quantized_relu",)  # names with another meaning in a model's config
TAKEN = ("x", "state", "dynamics", "v_threshold", "carries", "learned")  # invalid names for learned parameters


def register_neuron(
    name: str,
    step: Step,
    start: Start = membrane_alone,
    *,
    description: str = "",
    parameters: Mapping[str, Callable[["Dynamics"], float]] | None = None,
    options: Mapping[str, Option] | None = None,
    check: Callable[["Dynamics"], None] = nothing_to_check,
    leaks: int = 0,
    signed: bool = False,
) -> None:
    """Add a neuron: configs, models and checkpoints can then name it. No kernel supports it: this definition always
    runs.

    Args:
        name: a new one, e.g. "alif".
        step: one SNN time step, (x, state, dynamics, v_threshold, **parameters) -> (spikes, state, h). The current x,
            the spikes (0 or 1), the membrane h before the reset and every tensor of the state have the same shape,
            which can be any. `step` usually ends with `functional.fire` and `functional.reset`.
        start: (x, dynamics, v_threshold) -> the state before the first time step, from the first current; by default
            the membrane only.
        description: one line, for help texts.
        parameters: learned parameters of each layer, {name: dynamics -> initial value}; `step` receives them by name,
            as tensors.
        options: numbers beyond those of `Dynamics`, {name: default}; `dynamics.options` holds their values.
        check: raises `UserError` for a `Dynamics` that is invalid for this neuron.
        leaks: multiplications per update, which the energy estimate counts (1 for LIF).
        signed: whether spikes may also be -1 if `Dynamics.signed` is set.

    Raises:
        UserError: an invalid name, one that is taken, or arguments of the wrong kind.
    """
    parameters, options = dict(parameters or {}), dict(options or {})
    if name in RESERVED:
        raise UserError(f"a neuron cannot be named {name!r}, which is reserved: choose another name")
    for key, function in {"step": step, "start": start, "check": check, **parameters}.items():
        if not callable(function):
            raise UserError(f"neuron {name!r}: {key} must be a function, not {function!r}")
    for key in parameters:
        if not key.isidentifier() or hasattr(nn.Module, key) or key in TAKEN:
            raise UserError(
                f"neuron {name!r}: no parameter can be named {key!r}, which is reserved: choose another name"
            )
    for key, value in options.items():
        if not isinstance(value, bool | int | float | str):
            raise UserError(f"neuron {name!r}: the default of {key} must be a number, bool or string, not {value!r}")
    neuron = Neuron(
        description=description,
        step=step,
        start=start,
        parameters=parameters,
        options=options,
        check=check,
        leaks=leaks,
        signed=signed,
    )
    register(NEURONS, "neuron", name, neuron)


@dataclass(frozen=True, kw_only=True)
class Dynamics:
    """Everything that defines a neuron except its threshold and learned parameters.

    Args:
        neuron: a name of `NEURONS`: "if", "lif", "plif", or a registered name.
        v_reset: membrane after a spike (hard reset), or None to subtract the threshold (soft reset).
        tau: LIF's time constant in SNN time steps, >= 1; initial value for PLIF, > 1. Unused by IF.
        decay_input: whether the input is also divided by tau.
        detach_reset: keep the gradient from flowing through the reset.
        surrogate: a name of `SURROGATES`.
        surrogate_alpha: its inverse width; None for the surrogate's default.
        initial_charge: membrane at the start, in units of the threshold, on top of the rest potential. With 1/2, an IF
            neuron with soft reset rounds to nearest instead of down: for a constant input x in [0, v_threshold] it
            emits floor(T x / v_threshold + 1/2) spikes (Bu et al., ICLR 2022, arXiv 2303.04347).
        signed: spikes may also be -1; only for IF neurons with soft reset.
        options: further options of the neuron (`register_neuron`), {name: value}; others keep their default.

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
    options: Mapping[str, Option] = field(default_factory=dict, hash=False)

    def __post_init__(self):
        definition = self.definition
        numbers = {
            "v_reset": self.v_reset,
            "tau, at least 1 time step,": self.tau,
            "initial_charge": self.initial_charge,
        }
        for name, value in numbers.items():
            soft_reset = value is None and name == "v_reset"
            if not soft_reset and not (isinstance(value, int | float) and math.isfinite(value)):
                raise UserError(f"{name} must be a finite number, got {value!r}")
        if not 0 <= self.initial_charge < 1:
            raise UserError(f"initial_charge must be at least 0 and below 1 threshold, got {self.initial_charge}")
        if self.signed and not (definition.signed and self.v_reset is None):
            raise UserError("signed spikes need an IF neuron with soft reset: neuron 'if', v_reset None")
        object.__setattr__(self, "surrogate_alpha", resolve_surrogate(self.surrogate, self.surrogate_alpha))
        object.__setattr__(self, "options", _complete(self.neuron, definition.options, self.options))
        definition.check(self)

    @property
    def definition(self) -> Neuron:
        """The entry of `NEURONS`."""
        return registered(NEURONS, "neuron", self.neuron)


def _complete(neuron: str, defaults: Mapping[str, Option], given: Mapping[str, Option]) -> dict[str, Option]:
    """The options of a neuron: the given values, and defaults for the others. Raises `UserError`."""
    for name, value in given.items():
        if name not in defaults:
            known = f"it has {', '.join(defaults)}" if defaults else "it has none"
            raise UserError(f"neuron {neuron!r} has no option {name!r}: {known}")
        if not _like(value, defaults[name]):
            raise UserError(f"{name} of neuron {neuron!r} must be like {defaults[name]!r}, got {value!r}")
    return {**defaults, **given}


def _like(value: object, default: Option) -> bool:
    """Whether a value has the type of a default; a whole number is also accepted for a float."""
    if isinstance(default, bool | str) or isinstance(value, bool | str):
        return type(value) is type(default)
    kinds = (int,) if isinstance(default, int) else (int, float)
    return isinstance(value, kinds) and math.isfinite(value)
