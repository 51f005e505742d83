"""The fused CPU neuron: csrc/neuron.cpp.

Forward is one pass over the currents; backward keeps only the currents and recomputes the membranes. Spikes are
bit-identical to the definition's, and so are gradients, with two exceptions: the sigmoid surrogate (its exponential is
our own: within 1e-6 of the largest gradient in float32, 1e-14 in float64) and PLIF's gradient of w (summed in float64
here). For bfloat16 currents, membranes and gradients are float32 internally and rounded once at the end.
The result depends neither on the number of threads nor on the instruction set.
"""

import ctypes

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sddpm.layouts import dense, matching, new_like
from sddpm.native import TYPES, library, pointer, pointers, run, threads_for
from sddpm.neurons.functional import Dynamics
from sddpm.neurons.kernels.neuron_struct import Neuron, neuron_struct
from sddpm.neurons.kernels.neuron_struct import unsupported as unsupported


class Call(ctypes.Structure):
    """Mirrors `struct Call` of neuron.cpp."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("type", "threads")),
        *((name, ctypes.c_int64) for name in ("T", "size", "x_stride", "grad_stride")),
        ("neuron", Neuron),
        *((name, ctypes.c_void_p) for name in ("x", "spikes", "grad", "grad_x", "grad_leak")),
    )


def _call(x: Tensor, leak: Tensor | None, dynamics: Dynamics, v_threshold: float, **addresses: int | None) -> Call:
    return Call(
        type=TYPES[x.dtype],
        threads=threads_for(x.numel()),
        T=x.shape[0],
        size=x[0].numel(),
        x_stride=x.stride(0),
        neuron=neuron_struct(dynamics, v_threshold, leak),
        x=pointer("x", x, x.dtype, strided=True),
        **addresses,
    )


def forward(x: Tensor, leak: Tensor | None, dynamics: Dynamics, v_threshold: float) -> Tensor:
    """Spikes of currents whose time steps are dense; `leak` is PLIF's sigmoid(w). No autograd."""
    spikes = new_like(x)
    call = _call(x, leak, dynamics, v_threshold, **pointers(x.dtype, spikes=spikes))
    run("sddpm_neuron_forward", call)
    return spikes


def backward(
    x: Tensor,
    leak: Tensor | None,
    dynamics: Dynamics,
    v_threshold: float,
    grad: Tensor,
    *,
    grad_x: Tensor,
    spikes: Tensor | None = None,
) -> Tensor | None:
    """Write the gradient of the currents to `grad_x`, which may be `grad`, the gradient of the spikes, itself.

    `grad`, `grad_x` and `spikes` have the memory layout of x. The spikes are recomputed into `spikes`, if given.
    Returns PLIF's gradient of leak.
    """
    call = _call(x, leak, dynamics, v_threshold, **pointers(x.dtype, grad_x=grad_x, spikes=spikes))
    call.grad, call.grad_stride = pointer("grad", grad, x.dtype, strided=True), grad.stride(0)
    if leak is None:
        run("sddpm_neuron_backward", call)
        return None
    kernels = library()
    assert kernels is not None
    partial = torch.zeros(-(-call.size // kernels.sddpm_neuron_block()), dtype=torch.float64, device="cpu")
    call.grad_leak = pointer("grad_leak", partial, torch.float64)
    run("sddpm_neuron_backward", call)
    return leak.new_tensor(sum(partial.tolist()))


class _Neuron(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, leak: Tensor | None, dynamics: Dynamics, v_threshold: float) -> Tensor:
        ctx.save_for_backward(x, leak)
        ctx.dynamics, ctx.v_threshold = dynamics, v_threshold
        return forward(x, leak, dynamics, v_threshold)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        x, leak = ctx.saved_tensors
        grad_x = new_like(x)
        grad_leak = backward(x, leak, ctx.dynamics, ctx.v_threshold, matching(grad, x), grad_x=grad_x)
        return grad_x, grad_leak, None, None


def multi_step(x: Tensor, dynamics: Dynamics, *, v_threshold: float = 1.0, w: Tensor | None = None) -> Tensor:
    """Spikes [T, ...] of currents [T, ...], as in `functional.multi_step`, for calls that `unsupported` accepts.

    Currents whose time steps are not dense in memory are copied first.
    """
    if not dense(x[0]):
        x = x.contiguous()
    leak = w.sigmoid() if w is not None and dynamics.neuron == "plif" else None
    differentiate = torch.is_grad_enabled() and (x.requires_grad or (leak is not None and leak.requires_grad))
    function = _Neuron.apply if differentiate else forward  # autograd's wrapper costs more than a small layer
    return function(x, leak, dynamics, float(v_threshold))  # type: ignore[return-value]
