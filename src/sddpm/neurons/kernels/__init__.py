"""Implementations of the multi-step neuron behind one function.

The environment variable SDDPM_NEURON_KERNEL chooses the implementation. It is read at every call:

    auto    (default) the fused kernel if one supports the call, else plain PyTorch
    eager   plain PyTorch, the definition
    fused   the fused kernel, or a `UserError` that says why it cannot be used

The fused kernel is native code on the CPU and Triton on CUDA devices, if PyTorch has installed Triton. Inside
torch.compile the definition itself is compiled and fused with the operations around it.
"""

import logging
from functools import cache
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from sddpm import native
from sddpm.choices import choice_from_environment
from sddpm.errors import UserError
from sddpm.neurons import functional
from sddpm.neurons.functional import Dynamics
from sddpm.neurons.kernels import cpu

VARIABLE = "SDDPM_NEURON_KERNEL"

logger = logging.getLogger(__name__)


def _choice() -> str:
    return choice_from_environment(VARIABLE, ("auto", "eager", "fused"))


def fused_allowed() -> bool:
    """Whether fused kernels may be used at all."""
    return _choice() != "eager"


@cache
def load_triton() -> ModuleType | None:
    """The module `triton_neuron`, or None (with one log line) if Triton is not installed."""
    try:
        return import_module("sddpm.neurons.kernels.triton_neuron")
    except ImportError as error:
        logger.warning("the Triton neuron kernel cannot be used (%s); neurons on GPUs run as plain PyTorch", error)
        return None


def _backend(device_type: str) -> ModuleType | None:
    """The module of fused kernels for a kind of device, or None."""
    return cpu if device_type == "cpu" else load_triton() if device_type == "cuda" else None


def _fused(
    x: Tensor, dynamics: Dynamics, v_threshold: object, w: Tensor | None
) -> tuple[ModuleType | None, str | None]:
    """The fused kernels for a call, or None and the reason why there are none."""
    if torch.jit.is_tracing() or torch.compiler.is_compiling():  # pyright: ignore[reportPrivateImportUsage]
        return None, "the call is being traced or compiled"
    backend = _backend(x.device.type)
    if backend is None:
        return None, "Triton is not installed" if x.device.type == "cuda" else f"there is none for {x.device.type}"
    reason = backend.unsupported(x, dynamics, v_threshold, w)
    return (backend if reason is None else None), reason


def uses_triton(x: Tensor, dynamics: Dynamics, v_threshold: object, w: Tensor | None) -> bool:
    """Whether a call of `multi_step` goes to the Triton kernels."""
    return _choice() != "eager" and _fused(x, dynamics, v_threshold, w)[0] not in (None, cpu)


def multi_step(
    x: Tensor, dynamics: Dynamics, *, v_threshold: float = 1.0, w: Tensor | None = None, **parameters: Tensor
) -> Tensor:
    """Spikes of a layer of neurons over all T time steps, by the fastest implementation that gives the same spikes.

    Args:
        x: input currents [T, ...], floating point.
        dynamics: the neuron.
        v_threshold: firing threshold.
        w: PLIF's learned scalar.
        parameters: learned parameters of other neurons, by name.

    Returns:
        Spikes [T, ...], 0 or 1, in the dtype and memory layout of x. Gradients: see `functional`, `cpu` and
        `triton_neuron`.

    Raises:
        UserError: x has no time step or is not floating point, or SDDPM_NEURON_KERNEL=fused is impossible here.
    """
    functional.check_tensors(parameters)
    choice = _choice()
    if choice != "eager":
        kernel, reason = _fused(x, dynamics, v_threshold, w)
        if kernel is not None:
            return kernel.multi_step(x, dynamics, v_threshold=v_threshold, w=w)
        if choice == "fused" and x.device.type != "meta":  # which has shapes alone: nothing is computed
            raise UserError(f"{VARIABLE}=fused, but the fused neuron kernel cannot be used: {reason}")
    return functional.multi_step(x, dynamics, v_threshold=v_threshold, w=w, **parameters)


def describe(device: str | torch.device = "cpu") -> str:
    """Which implementation neurons on a device use, in a few words."""
    device = torch.device(device)
    if _choice() == "eager":
        return f"plain PyTorch ({VARIABLE}=eager)"
    if device.type == "cuda":
        kernel = load_triton()
        reason = "Triton is not installed" if kernel is None else kernel.broken(device)
        return "fused Triton kernel" if reason is None else f"plain PyTorch ({reason})"
    if device.type != "cpu":
        return "plain PyTorch"
    if native.library() is None:
        return "plain PyTorch (the native kernels were not built)"
    count = native.threads()
    return f"fused native kernel ({native.instruction_set()}, {count} thread{'s' * (count > 1)})"
