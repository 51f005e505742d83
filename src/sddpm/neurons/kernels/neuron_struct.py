"""A neuron as an argument of the native kernels, and whether they support it."""

import ctypes

from torch import Tensor

from sddpm.native import unsupported_tensor
from sddpm.neurons.functional import Dynamics, start_of_membrane
from sddpm.neurons.kernels.ids import SURROGATE_IDS, charge_id, unknown


class Neuron(ctypes.Structure):
    """Mirrors `struct Neuron` of neuron.h."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("charge", "surrogate", "hard", "detach")),
        *((name, ctypes.c_double) for name in ("v_threshold", "v_reset", "leak", "alpha", "start")),
    )


def neuron_struct(dynamics: Dynamics, v_threshold: float, leak: Tensor | None) -> Neuron:
    """A supported neuron as an argument of the kernels; `leak` is PLIF's sigmoid(w)."""
    return Neuron(
        charge=charge_id(dynamics),
        surrogate=SURROGATE_IDS.get(dynamics.surrogate, -1),  # spikes do not depend on it
        hard=dynamics.v_reset is not None,
        detach=dynamics.detach_reset,
        v_threshold=v_threshold,
        v_reset=dynamics.v_reset or 0.0,
        leak=dynamics.tau if leak is None else leak.item(),
        alpha=dynamics.surrogate_alpha,
        start=start_of_membrane(dynamics, v_threshold),
    )


def unsupported(x: Tensor, dynamics: Dynamics, v_threshold: object, w: Tensor | None) -> str | None:
    """Why the kernels do not support these currents [T, ...] and this neuron, or None if they do."""
    if (reason := unsupported_tensor(x)) is not None:
        return reason
    if isinstance(v_threshold, Tensor):
        return "the threshold is a tensor"
    if (reason := unknown(dynamics)) is not None:
        return reason
    if dynamics.neuron == "plif" and (w is None or w.dim() > 0 or w.device.type != "cpu"):
        return "w is not a scalar on the CPU"
    return None
