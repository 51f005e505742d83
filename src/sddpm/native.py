"""The native kernels: the C++ of csrc/, which is compiled when sddpm is installed and called through ctypes.

This is the only place that calls it. What is called, and by which layer, stands in the `kernels` of the packages.
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
GRAIN = 32768  # elements below which another thread costs more than it saves (torch's own grain size)

logger = logging.getLogger(__name__)


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None (with one log line) where they were not built."""
    folder = Path(__file__).parent
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = folder / f"_native{suffix}"
        if path.exists():
            try:
                return ctypes.CDLL(str(path))
            except OSError as error:
                logger.warning("the native kernels do not load (%s); all runs as plain PyTorch", error)
                return None
    logger.warning("the native kernels were not built (no C++ compiler?); all runs as plain PyTorch")
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


def pointer(name: str, tensor: Tensor | None, dtype: torch.dtype, *, strided: bool = False) -> int | None:
    """Address of a tensor, for the field of that name of a call; None for None, a null pointer.

    All that a kernel reads or writes goes through here, so that none is given memory of another type or extent.

    Args:
        name: what the tensor is, for the message.
        tensor: on the CPU.
        dtype: what it must be.
        strided: whether the call also says how far apart its rows lie. Otherwise it must have no gaps.

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
    """`pointer` of tensors of one dtype, by name."""
    return {name: pointer(name, tensor, dtype) for name, tensor in tensors.items()}


def run(name: str, call: ctypes.Structure) -> None:
    """Call a kernel by name. Raises `MemoryError`."""
    kernels = library()
    assert kernels is not None
    if kernels[name](ctypes.byref(call), ctypes.c_void_p(_parallel())):
        raise MemoryError(f"no memory for the scratch of {name}")


def instruction_set() -> str:
    """Name of the instruction set in use; call it only where the kernels were built."""
    kernels = library()
    assert kernels is not None
    return instruction_sets()[kernels.sddpm_instruction_set(-1)]


def instruction_sets() -> list[str]:
    """What the neuron, norm and dense kernels were built for, by name, the least first; this machine may have fewer.

    None where nothing was built.
    """
    kernels, names = library(), []
    if kernels is not None:
        kernels.sddpm_instruction_set_name.restype = ctypes.c_char_p
        while (name := kernels.sddpm_instruction_set_name(len(names))) is not None:
            names.append(name.decode())
    return names


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
