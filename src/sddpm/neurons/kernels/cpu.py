"""The fused CPU neuron: neuron.cpp, compiled when sddpm is installed and called through ctypes.

Forward is one pass over the currents; backward keeps nothing but the currents and recomputes the membranes. Spikes are
the same bits as the definition's, and so are gradients, with two exceptions: the sigmoid surrogate (its exponential is
our own: within 1e-6 of the largest gradient in float32, 1e-14 in float64) and PLIF's gradient of w (summed in float64
here). bfloat16 currents have float32 membranes and gradients inside, rounded once at the end.
The result depends neither on the number of threads nor on the instruction set.
"""

import ctypes
import importlib.machinery
import logging
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sddpm.neurons.functional import Dynamics
from sddpm.neurons.kernels.layouts import dense, matching, new_like

TYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2}
SURROGATE_IDS = {"atan": 0, "sigmoid": 1, "rectangle": 2, "triangle": 3, "piecewise_quadratic": 4}
INSTRUCTION_SETS = ("baseline", "AVX2", "AVX-512")
GRAIN = 32768  # elements below which another thread costs more than it saves (torch's own grain size)

logger = logging.getLogger(__name__)


class Call(ctypes.Structure):
    """Mirrors `struct Call` of neuron.cpp."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("type", "charge", "surrogate", "hard", "detach", "threads")),
        *((name, ctypes.c_int64) for name in ("T", "size", "x_stride", "grad_stride")),
        *((name, ctypes.c_double) for name in ("v_threshold", "v_reset", "leak", "alpha")),
        *((name, ctypes.c_void_p) for name in ("x", "spikes", "grad", "grad_x", "grad_leak")),
    )


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernel, or None (with one log line) where it was not built."""
    folder = Path(__file__).parent
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = folder / f"_cpu{suffix}"
        if path.exists():
            try:
                loaded = ctypes.CDLL(str(path))
            except OSError as error:
                logger.warning("the native neuron kernel does not load (%s); neurons run as plain PyTorch", error)
                return None
            for function in (loaded.sddpm_neuron_forward, loaded.sddpm_neuron_backward):
                function.argtypes = (ctypes.POINTER(Call), ctypes.c_void_p)
            return loaded
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


def instruction_set() -> str:
    """Name of the instruction set in use; call it only where the kernel was built."""
    loaded = library()
    assert loaded is not None
    return INSTRUCTION_SETS[loaded.sddpm_neuron_instruction_set(-1)]


def threads() -> int:
    """How many threads a large call uses."""
    return torch.get_num_threads() if _parallel() else 1


def unsupported(x: Tensor, dynamics: Dynamics, v_threshold: object, w: Tensor | None) -> str | None:
    """Why the fused kernel cannot take this call, or None if it can."""
    if x.device.type != "cpu":
        return f"it runs on the CPU and the currents are on {x.device}"
    if x.dtype not in TYPES:
        return f"it takes float32, float64 and bfloat16, not {x.dtype}"
    traced = torch.jit.is_tracing() or torch.compiler.is_compiling()  # pyright: ignore[reportPrivateImportUsage]
    if traced or type(x) not in (Tensor, torch.nn.Parameter):
        return "the call is being traced or compiled"
    if x.dim() == 0 or x.shape[0] == 0:
        return "there is no time step"
    if isinstance(v_threshold, Tensor):
        return "the threshold is a tensor"
    if dynamics.neuron == "plif" and (w is None or w.dim() > 0 or w.device.type != "cpu"):
        return "w is not a scalar on the CPU"
    return None if library() is not None else "it was not built"


def _call(x: Tensor, leak: Tensor | None, dynamics: Dynamics, v_threshold: float) -> Call:
    charge = {"if": 0, "lif": 1, "plif": 3}[dynamics.neuron]
    return Call(
        type=TYPES[x.dtype],
        charge=charge + (charge > 0 and not dynamics.decay_input),
        surrogate=SURROGATE_IDS[dynamics.surrogate],
        hard=dynamics.v_reset is not None,
        detach=dynamics.detach_reset,
        threads=max(1, min(threads(), x.numel() // GRAIN)),
        T=x.shape[0],
        size=x[0].numel(),
        x_stride=x.stride(0),
        v_threshold=v_threshold,
        v_reset=dynamics.v_reset or 0.0,
        leak=dynamics.tau if leak is None else leak.item(),
        alpha=dynamics.surrogate_alpha,
        x=x.data_ptr(),
    )


def _run(function, call: Call) -> None:
    if function(call, _parallel()):
        raise MemoryError("no memory for the membranes of a neuron layer")


def _forward(x: Tensor, leak: Tensor | None, dynamics: Dynamics, v_threshold: float) -> Tensor:
    kernel = library()
    assert kernel is not None
    spikes = new_like(x)
    call = _call(x, leak, dynamics, v_threshold)
    call.spikes = spikes.data_ptr()
    _run(kernel.sddpm_neuron_forward, call)
    return spikes


class _Neuron(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, leak: Tensor | None, dynamics: Dynamics, v_threshold: float) -> Tensor:
        ctx.save_for_backward(x, leak)
        ctx.dynamics, ctx.v_threshold = dynamics, v_threshold
        return _forward(x, leak, dynamics, v_threshold)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        x, leak = ctx.saved_tensors
        grad, grad_x = matching(grad, x), new_like(x)
        call = _call(x, leak, ctx.dynamics, ctx.v_threshold)
        call.grad, call.grad_stride, call.grad_x = grad.data_ptr(), grad.stride(0), grad_x.data_ptr()
        kernel = library()
        assert kernel is not None
        partial = None
        if leak is not None:
            partial = torch.zeros(-(-call.size // kernel.sddpm_neuron_block()), dtype=torch.float64)
            call.grad_leak = partial.data_ptr()
        _run(kernel.sddpm_neuron_backward, call)
        grad_leak = None if leak is None or partial is None else leak.new_tensor(sum(partial.tolist()))
        return grad_x, grad_leak, None, None


def multi_step(x: Tensor, dynamics: Dynamics, *, v_threshold: float = 1.0, w: Tensor | None = None) -> Tensor:
    """Spikes [T, ...] of currents [T, ...], as `functional.multi_step`, for calls that are not `unsupported`.

    Currents whose time steps are not dense in memory are copied first.
    """
    if not dense(x[0]):
        x = x.contiguous()
    leak = w.sigmoid() if w is not None and dynamics.neuron == "plif" else None
    differentiate = torch.is_grad_enabled() and (x.requires_grad or (leak is not None and leak.requires_grad))
    run = _Neuron.apply if differentiate else _forward  # autograd's wrapper costs more than a small layer
    return run(x, leak, dynamics, float(v_threshold))  # type: ignore[return-value]
