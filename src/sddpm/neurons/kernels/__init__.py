"""Implementations of the multi-step neuron behind one function.

The environment variable SDDPM_NEURON_KERNEL chooses, and is read at every call:

    auto    (default) the fused kernel where there is one for the call, else plain PyTorch
    eager   plain PyTorch, the definition
    fused   the fused kernel, or a `UserError` that says why it cannot be used
"""

import os

from torch import Tensor

from sddpm.errors import UserError
from sddpm.neurons import functional
from sddpm.neurons.functional import Dynamics
from sddpm.neurons.kernels import cpu, native

VARIABLE = "SDDPM_NEURON_KERNEL"


def _choice() -> str:
    choice = os.environ.get(VARIABLE, "auto")
    if choice not in ("auto", "eager", "fused"):
        raise UserError(f"{VARIABLE} must be auto, eager or fused, got {choice!r}")
    return choice


def multi_step(x: Tensor, dynamics: Dynamics, *, v_threshold: float = 1.0, w: Tensor | None = None) -> Tensor:
    """Spikes of a layer of neurons over all T time steps, by the fastest implementation that gives the same spikes.

    Args:
        x: input currents [T, ...], floating point.
        dynamics: what neuron.
        v_threshold: firing threshold.
        w: PLIF's learned scalar.

    Returns:
        Spikes [T, ...], 0 or 1, in the dtype and memory order of x. Gradients: see `cpu` and `functional`.

    Raises:
        UserError: x has no time step or is not floating point, or SDDPM_NEURON_KERNEL asks for what is impossible.
    """
    choice = _choice()
    if choice != "eager":
        reason = native.unsupported(x, dynamics, v_threshold, w)
        if reason is None:
            return cpu.multi_step(x, dynamics, v_threshold=v_threshold, w=w)
        if choice == "fused":
            raise UserError(f"{VARIABLE}=fused, but the fused neuron kernel cannot be used: {reason}")
    return functional.multi_step(x, dynamics, v_threshold=v_threshold, w=w)


def describe() -> str:
    """Which implementation neurons on the CPU use, in a few words."""
    if _choice() == "eager":
        return f"plain PyTorch ({VARIABLE}=eager)"
    if native.library() is None:
        return "plain PyTorch (the native kernel was not built)"
    count = native.threads()
    return f"fused native kernel ({native.instruction_set()}, {count} thread{'s' * (count > 1)})"
