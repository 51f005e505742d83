"""The native kernels: C++ that is compiled when sddpm is installed, and called through ctypes."""

import ctypes
import importlib.machinery
import logging
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from sddpm.neurons.functional import Dynamics, start_of_membrane

TYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2}
SURROGATE_IDS = {"atan": 0, "sigmoid": 1, "rectangle": 2, "triangle": 3, "piecewise_quadratic": 4}
INSTRUCTION_SETS = ("baseline", "AVX2", "AVX-512")
GRAIN = 32768  # elements below which another thread costs more than it saves (torch's own grain size)

logger = logging.getLogger(__name__)


class Neuron(ctypes.Structure):
    """Mirrors `struct Neuron` of neuron.h."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("charge", "surrogate", "hard", "detach")),
        *((name, ctypes.c_double) for name in ("v_threshold", "v_reset", "leak", "alpha", "start")),
    )


def neuron_struct(dynamics: Dynamics, v_threshold: float, leak: Tensor | None) -> Neuron:
    """A neuron as the kernels take it; `leak` is PLIF's sigmoid(w)."""
    charge = {"if": 0, "lif": 1, "plif": 3}[dynamics.neuron]
    return Neuron(
        charge=charge + (charge > 0 and not dynamics.decay_input),
        surrogate=SURROGATE_IDS[dynamics.surrogate],
        hard=dynamics.v_reset is not None,
        detach=dynamics.detach_reset,
        v_threshold=v_threshold,
        v_reset=dynamics.v_reset or 0.0,
        leak=dynamics.tau if leak is None else leak.item(),
        alpha=dynamics.surrogate_alpha,
        start=start_of_membrane(dynamics, v_threshold),
    )


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None (with one log line) where they were not built."""
    folder = Path(__file__).parent
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = folder / f"_cpu{suffix}"
        if path.exists():
            try:
                return ctypes.CDLL(str(path))
            except OSError as error:
                logger.warning("the native neuron kernel does not load (%s); neurons run as plain PyTorch", error)
                return None
    logger.warning("the native neuron kernel was not built (no C++ compiler?); neurons run as plain PyTorch")
    return None


@cache
def _parallel() -> int | None:
    """Address of GOMP_parallel in the OpenMP library that torch itself uses, or None: then one thread does it all."""
    folder = Path(torch.__file__).parent / "lib"
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        try:
            return ctypes.cast(ctypes.CDLL(str(folder / name)).GOMP_parallel, ctypes.c_void_p).value
        except (OSError, AttributeError):
            continue
    return None


def run(name: str, call: ctypes.Structure) -> None:
    """Call a kernel by name. Raises `MemoryError`."""
    kernels = library()
    assert kernels is not None
    if kernels[name](ctypes.byref(call), ctypes.c_void_p(_parallel())):
        raise MemoryError("no memory for the membranes of a neuron layer")


def instruction_set() -> str:
    """Name of the instruction set in use; call it only where the kernels were built."""
    kernels = library()
    assert kernels is not None
    return INSTRUCTION_SETS[kernels.sddpm_instruction_set(-1)]


def threads() -> int:
    """How many threads a large call uses."""
    return torch.get_num_threads() if _parallel() else 1


def threads_for(elements: int) -> int:
    """How many threads a call on so many elements should use."""
    return max(1, min(threads(), elements // GRAIN))


def unsupported_tensor(x: Tensor) -> str | None:
    """Why the kernels cannot take this tensor [T, ...], or None if they can."""
    if x.device.type != "cpu":
        return f"it runs on the CPU and the currents are on {x.device}"
    if x.dtype not in TYPES:
        return f"it takes float32, float64 and bfloat16, not {x.dtype}"
    traced = torch.jit.is_tracing() or torch.compiler.is_compiling()  # pyright: ignore[reportPrivateImportUsage]
    if traced or type(x) not in (Tensor, torch.nn.Parameter):
        return "the call is being traced or compiled"
    if x.dim() == 0 or x.shape[0] == 0:
        return "there is no time step"
    return None if library() is not None else "it was not built"


def unsupported(x: Tensor, dynamics: Dynamics, v_threshold: object, w: Tensor | None) -> str | None:
    """Why the kernels cannot take these currents [T, ...] and this neuron, or None if they can."""
    if (reason := unsupported_tensor(x)) is not None:
        return reason
    if isinstance(v_threshold, Tensor):
        return "the threshold is a tensor"
    if dynamics.signed:
        return "spikes are signed"
    if dynamics.neuron == "plif" and (w is None or w.dim() > 0 or w.device.type != "cpu"):
        return "w is not a scalar on the CPU"
    return None
