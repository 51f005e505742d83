"""The fused GPU neuron, in Triton: one pass over the currents forward, one over currents and gradients backward.

Backward keeps only the currents and recomputes the membranes. For bfloat16 and float16 currents, membranes and
gradients are float32 internally and rounded once at the end. Spikes are bit-identical to those of the definition on the
CPU, and so are gradients, with two exceptions: the sigmoid surrogate (the GPU's exponential: within 1e-6 of the largest
gradient) and PLIF's gradient of w (summed in another order). (On a GPU, the definition itself differs from its result
on the CPU if tau is not a power of two: PyTorch multiplies by 1/tau there.)

Under Triton's interpreter (TRITON_INTERPRET=1) the same kernels run on the CPU, slowly, for tests.
"""

import logging
import math
from functools import cache
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from sddpm.layouts import dense, matching, new_like
from sddpm.neurons.functional import Dynamics, start_of_membrane
from sddpm.neurons.kernels import triton_kernels as kernels
from sddpm.neurons.kernels.ids import SURROGATE_IDS, charge_id, unknown

TYPES = (torch.float32, torch.bfloat16, torch.float16)
WARPS = 4  # of a program
MAX_T = 32  # loops over time are unrolled, and registers hold the membranes of all time steps

logger = logging.getLogger(__name__)


class Numbers(NamedTuple):
    """The scalars of a neuron as the kernels take them: the membrane's rest value `rest` and its initial value `start`;
    `leak` is a number for LIF, a tensor on the device for PLIF."""

    v_threshold: float
    rest: float
    start: float
    leak: Any


def interpreted() -> bool:
    """Whether Triton runs its kernels on the CPU."""
    return not isinstance(kernels.forward_kernel, triton.JITFunction)


@cache
def broken(device: torch.device) -> str | None:
    """Why kernels cannot be compiled or run on a device (no C compiler for Triton's launcher, say), or None."""
    try:
        x = torch.ones(1, 8, device=device)
        if float(_forward(x, None, Dynamics(), 1.0, x.dtype).sum()) == 8.0:
            return None
        reason = "it gave wrong spikes"
    except Exception as error:  # no failure of Triton may stop a network from running
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    logger.warning("the Triton neuron kernel does not work on %s (%s); neurons run as plain PyTorch", device, reason)
    return reason


def unsupported(x: Tensor, dynamics: Dynamics, v_threshold: object, w: Tensor | None) -> str | None:
    """Why the fused kernel does not support this call, or None if it does."""
    if x.device.type != ("cpu" if interpreted() else "cuda"):
        return f"it runs on CUDA devices only and the currents are on {x.device}"
    if x.dtype not in TYPES:
        return f"it supports float32, bfloat16 and float16, not {x.dtype}"
    traced = torch.jit.is_tracing() or torch.compiler.is_compiling()  # pyright: ignore[reportPrivateImportUsage]
    if traced or type(x) not in (Tensor, torch.nn.Parameter):
        return "the call is being traced or compiled"
    if x.dim() == 0 or not 1 <= x.shape[0] <= MAX_T:
        return f"it supports 1 to {MAX_T} time steps"
    if isinstance(v_threshold, Tensor):
        return "the threshold is a tensor"
    if (reason := unknown(dynamics)) is not None:
        return reason
    if dynamics.neuron == "plif" and (w is None or w.dim() > 0 or w.device != x.device):
        return "w is not a scalar on the device of the currents"
    return broken(x.device)


def numbers(dynamics: Dynamics, v_threshold: float, leak: Tensor | None) -> Numbers:
    rest, start = float(dynamics.v_reset or 0.0), start_of_membrane(dynamics, v_threshold)
    return Numbers(v_threshold, rest, start, float(dynamics.tau) if leak is None else leak)


def surrogate_constants(dynamics: Dynamics) -> tuple[float, float, float]:
    """a, b and c of `triton_kernels.surrogate_vjp`, multiplied in float64 as `surrogates` does."""
    alpha = dynamics.surrogate_alpha
    assert alpha is not None
    return {
        "atan": (math.pi * (alpha / 2), alpha / 2, 0.0),
        "sigmoid": (alpha, 0.0, 0.0),
        "rectangle": (alpha, 0.5 / alpha, 0.0),
        "triangle": (alpha, 0.0, 0.0),
        "piecewise_quadratic": (alpha, 1 / alpha, -(alpha * alpha)),
    }[dynamics.surrogate]


def power_of_two(number: int) -> int:
    """The smallest power of two that is at least `number`."""
    return 1 << (number - 1).bit_length()


def programs_for(size: int, block: int) -> int:
    """How many programs of `block` elements cover `size`."""
    return -(-size // block)


def block_size(T: int) -> int:
    """Neurons per program: 8 per thread with 128 threads, fewer if registers must hold more time steps."""
    return max(128, 4096 // max(4, power_of_two(T)))


def launch(kernel: Any, grid: tuple[int, ...], x: Tensor, *arguments: Any, **constants: Any) -> None:
    """Run a kernel on the device of x, with the rounding of separate multiplications and additions."""
    if all(grid):
        with torch.cuda.device_of(x):
            kernel[grid](*arguments, **constants, num_warps=WARPS, enable_fp_fusion=False)


def _forward(x: Tensor, leak: Tensor | None, dynamics: Dynamics, v_threshold: float, dtype: torch.dtype) -> Tensor:
    spikes = new_like(x, dtype)
    size, block = x[0].numel(), block_size(x.shape[0])
    v_threshold, rest, start, leak = numbers(dynamics, v_threshold, leak)
    launch(
        kernels.forward_kernel,
        (programs_for(size, block),),
        x,
        *(x, spikes, leak, size, x.stride(0), v_threshold, rest, start),
        T=x.shape[0],
        CHARGE=charge_id(dynamics),
        HARD=dynamics.v_reset is not None,
        BLOCK=block,
    )
    return spikes


class _Neuron(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, leak: Tensor | None, dynamics: Dynamics, v_threshold: float) -> Tensor:
        ctx.save_for_backward(x, leak)
        ctx.dynamics, ctx.v_threshold = dynamics, v_threshold
        return _forward(x, leak, dynamics, v_threshold, x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        x, leak = ctx.saved_tensors
        dynamics = ctx.dynamics
        grad, grad_x = matching(grad, x), new_like(x)
        size, block = x[0].numel(), block_size(x.shape[0])
        programs = programs_for(size, block)
        partial = x.new_zeros(programs if leak is not None else 0, dtype=torch.float32)
        v_threshold, rest, start, leak_number = numbers(dynamics, ctx.v_threshold, leak)
        launch(
            kernels.backward_kernel,
            (programs,),
            x,
            *(x, grad, grad_x, leak_number, partial, size, x.stride(0), grad.stride(0), v_threshold, rest, start),
            *surrogate_constants(dynamics),
            T=x.shape[0],
            CHARGE=charge_id(dynamics),
            SURROGATE=SURROGATE_IDS[dynamics.surrogate],
            HARD=dynamics.v_reset is not None,
            DETACH=dynamics.detach_reset,
            BLOCK=block,
        )
        return grad_x, None if leak is None else partial.sum(dtype=torch.float64).to(leak), None, None


def multi_step(
    x: Tensor,
    dynamics: Dynamics,
    *,
    v_threshold: float = 1.0,
    w: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Spikes [T, ...] of currents [T, ...], as in `functional.multi_step`, for calls that `unsupported` accepts.

    Currents whose time steps are not dense in memory are copied first. `dtype` is that of the spikes (uint8, say), for
    calls without gradients; None for that of x.
    """
    if not dense(x[0]):
        x = x.contiguous()
    leak = w.sigmoid().float() if w is not None and dynamics.neuron == "plif" else None
    if torch.is_grad_enabled() and (x.requires_grad or (leak is not None and leak.requires_grad)):
        spikes: Any = _Neuron.apply(x, leak, dynamics, float(v_threshold))
        return spikes if dtype is None else spikes.to(dtype)
    return _forward(x, leak, dynamics, float(v_threshold), dtype or x.dtype)
