"""The native kernels: the C++ of csrc/, which is compiled when sddpm is installed and called through ctypes.

Only this module calls it. The `kernels` subpackages define which functions are called, and by which layer.
"""

import ctypes
import importlib.machinery
import logging
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from sddpm.layouts import dense

TYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2}
GRAIN = 32768  # elements below which another thread costs more than it saves (torch's grain size)

logger = logging.getLogger(__name__)


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None (with one log line) if they were not built."""
    folder = Path(__file__).parent
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = folder / f"_native{suffix}"
        if path.exists():
            try:
                return ctypes.CDLL(str(path))
            except OSError as error:
                logger.warning("the native kernels cannot be loaded (%s); using plain PyTorch", error)
                return None
    logger.warning("the native kernels were not built (no C++ compiler?); using plain PyTorch")
    return None


@cache
def _parallel() -> int | None:
    """Address of GOMP_parallel in the OpenMP library that torch itself uses, or None, in which case a single thread is
    used."""
    folder = Path(torch.__file__).parent / "lib"
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        try:
            return ctypes.cast(ctypes.CDLL(str(folder / name)).GOMP_parallel, ctypes.c_void_p).value
        except (OSError, AttributeError):
            continue
    return None


def pointer(name: str, tensor: Tensor | None, dtype: torch.dtype, *, strided: bool = False) -> int | None:
    """Address of a tensor, for a field of a call; None (a null pointer) for None.

    All memory that a kernel reads or writes is checked here, so that no kernel gets a wrong dtype or size.

    Args:
        name: name of the tensor, for error messages.
        tensor: a tensor on the CPU.
        dtype: the required dtype.
        strided: whether the call also has the stride of its rows. Otherwise the tensor must have no gaps.

    Raises:
        TypeError: a tensor of another dtype, on another device, or with gaps in memory.
    """
    if tensor is None:
        return None
    if tensor.dtype != dtype or not tensor.is_cpu:
        raise TypeError(f"native kernels need {name} as {dtype} on cpu, got {tensor.dtype} on {tensor.device}")
    if not (strided or dense(tensor)):
        raise TypeError(f"native kernels need {name} without gaps in memory, got strides {tensor.stride()}")
    return tensor.data_ptr()


def pointers(dtype: torch.dtype, **tensors: Tensor | None) -> dict[str, int | None]:
    """`pointer` for several tensors of one dtype, by name."""
    return {name: pointer(name, tensor, dtype) for name, tensor in tensors.items()}


def run(name: str, call: ctypes.Structure) -> None:
    """Call a kernel by name. Raises `MemoryError`."""
    kernels = library()
    assert kernels is not None
    if kernels[name](ctypes.byref(call), ctypes.c_void_p(_parallel())):
        raise MemoryError(f"no memory for the scratch of {name}")


def instruction_set() -> str:
    """Name of the instruction set in use; only valid if the kernels were built."""
    kernels = library()
    assert kernels is not None
    return instruction_sets()[kernels.sddpm_instruction_set(-1)]


def instruction_sets() -> list[str]:
    """The instruction sets for which the neuron, norm and dense kernels were built, by name, the simplest first; this
    machine may support fewer.

    Empty if nothing was built.
    """
    kernels, names = library(), []
    if kernels is not None:
        kernels.sddpm_instruction_set_name.restype = ctypes.c_char_p
        while (name := kernels.sddpm_instruction_set_name(len(names))) is not None:
            names.append(name.decode())
    return names


def threads() -> int:
    """The number of threads of a large call."""
    return torch.get_num_threads() if _parallel() else 1


def threads_for(elements: int) -> int:
    """The number of threads for a call on this number of elements."""
    return max(1, min(threads(), elements // GRAIN))


def unsupported_tensor(x: Tensor) -> str | None:
    """Why the kernels do not support this tensor [T, ...], or None if they do."""
    if x.device.type != "cpu":
        return f"it runs on the CPU only and the currents are on {x.device}"
    if x.dtype not in TYPES:
        return f"it supports float32, float64 and bfloat16, not {x.dtype}"
    traced = torch.jit.is_tracing() or torch.compiler.is_compiling()  # pyright: ignore[reportPrivateImportUsage]
    if traced or type(x) not in (Tensor, torch.nn.Parameter):
        return "the call is being traced or compiled"
    if x.dim() == 0 or x.shape[0] == 0:
        return "there is no time step"
    return None if library() is not None else "it was not built"
