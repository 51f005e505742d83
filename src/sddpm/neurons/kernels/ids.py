"""The neurons and surrogates that the fused kernels support, with their numbers in C++ and Triton.

For all other registered parts, the definition runs.
"""

import logging
from functools import cache

from sddpm.neurons.functional import Dynamics

# In the order of `enum Surrogate` of csrc/neuron.h, and of `surrogate_vjp` of triton_kernels.py.
SURROGATE_IDS = {"atan": 0, "sigmoid": 1, "rectangle": 2, "triangle": 3, "piecewise_quadratic": 4}
# By neuron and by whether its input decays, in the order of `enum Charge` there.
CHARGE_IDS = {
    **{("if", True): 0, ("if", False): 0},
    **{("lif", True): 1, ("lif", False): 2},
    **{("plif", True): 3, ("plif", False): 4},
}

logger = logging.getLogger(__name__)


def charge_id(dynamics: Dynamics) -> int:
    """The number of a neuron that the kernels support."""
    return CHARGE_IDS[dynamics.neuron, dynamics.decay_input]


def unknown_neuron(dynamics: Dynamics) -> str | None:
    """Why the kernels cannot compute the spikes of a neuron, or None if they can. The surrogate does not matter."""
    if (dynamics.neuron, dynamics.decay_input) not in CHARGE_IDS:
        return _say_once(f"it does not support the neuron {dynamics.neuron!r}")
    return "spikes are signed" if dynamics.signed else None


def unknown(dynamics: Dynamics) -> str | None:
    """Why the kernels cannot compute the spikes of a neuron and their gradients, or None if they can."""
    if dynamics.surrogate not in SURROGATE_IDS:
        return _say_once(f"it does not support the surrogate {dynamics.surrogate!r}")
    return unknown_neuron(dynamics)


@cache
def _say_once(reason: str) -> str:
    logger.warning("the fused neuron kernel is not used: %s; neurons run as plain PyTorch", reason)
    return reason
