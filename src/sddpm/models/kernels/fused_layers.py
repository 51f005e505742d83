"""Neurons with the norm before them, and an affine map with a sum: one kernel on CUDA devices, else separate
operations."""

from types import ModuleType

import torch
from torch import Tensor, nn

from sddpm.neurons import Dynamics, SpikingNeuron
from sddpm.neurons.kernels import uses_triton
from sddpm.neurons.modules import replaceable, watched


def _kernels() -> ModuleType:
    from sddpm.models.kernels import triton_channels  # importable only if Triton is installed

    return triton_channels


def _fires_by_triton(neuron: nn.Module, x: Tensor) -> bool:
    """Whether `neuron` is an unmodified `SpikingNeuron` that the Triton kernels support."""
    if not isinstance(neuron, SpikingNeuron) or not replaceable(neuron):
        return False
    return uses_triton(x, neuron.dynamics, neuron.v_threshold, neuron.w)


def normalize_and_fire(norm: nn.BatchNorm2d, neuron: nn.Module, x: Tensor, shift: Tensor | None = None) -> Tensor:
    """neuron(norm(x) + shift): in one kernel if available (CUDA, while training), else in separate operations.

    When fused, the normalised currents and their sum with the shift are never written to memory or kept for the
    backward pass, and both are float32 internally even for bfloat16 x. Nothing is fused if a module has a forward or
    backward hook.

    Args:
        norm: batch norm over [T, B, C, H, W].
        neuron: a `SpikingNeuron`, or the module that replaces it.
        x: [T, B, C, H, W].
        shift: [B, C], the same at all time steps (the time embedding's); None for 0.

    Raises:
        UserError: as `sddpm.neurons.multi_step`.
    """
    if not watched(norm) and _fires_by_triton(neuron, x) and _kernels().unfusable(x, norm) is None:
        options = {"shift": shift, "v_threshold": neuron.v_threshold, "w": neuron.w}
        return _kernels().normalized_multi_step(x, norm, neuron.dynamics, **options)
    return neuron(norm(x) if shift is None else norm(x) + shift[:, :, None, None])


def _affine(x: Tensor, gain: Tensor | None, offset: Tensor | None) -> Tensor:
    space = [1] * (x.dim() - 3)
    if gain is not None:
        x = x * gain.view(len(gain), 1, *space, -1)
    return x if offset is None else x + offset.view(*offset.shape[:2], *space, -1)


@torch.no_grad()
def affine_fire(
    x: Tensor,
    neuron: SpikingNeuron,
    *,
    gain: Tensor | None = None,
    offset: Tensor | None = None,
    dtype: torch.dtype | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Spikes of the currents gain x + offset, without gradients: in one kernel on CUDA devices, else in separate
    operations.

    Args:
        x: [T, B, ..., C], channels innermost.
        neuron: its dynamics, threshold and learned parameters are read at every call.
        gain: [T or 1, 1 or C]; None for 1.
        offset: [T or 1, B or 1, C]; None for 0.
        dtype: of the spikes; None for that of x.
        out: where to write them, e.g. a slice of the channels of a contiguous [T, B, ..., C'].

    Returns:
        Spikes [T, B, ..., C], 0 or 1.

    Raises:
        UserError: as `sddpm.neurons.multi_step`.
    """
    if _fires_by_triton(neuron, x):
        options = {"v_threshold": neuron.v_threshold, "w": neuron.w, "dtype": dtype, "out": out}
        return _kernels().affine_multi_step(x, neuron.dynamics, gain=gain, offset=offset, **options)
    spikes = neuron(_affine(x, gain, offset)).to(dtype or x.dtype)
    return spikes if out is None else out.copy_(spikes)


@torch.no_grad()
def affine_add(
    x: Tensor, *, gain: Tensor | None = None, offset: Tensor | None = None, add: Tensor | None = None
) -> Tensor:
    """gain x + offset + add in the dtype of x, without gradients; x may be overwritten.

    Args:
        x: [T, B, ..., C], contiguous.
        gain: [T or 1, 1 or C]; None for 1.
        offset: [T or 1, B or 1, C]; None for 0.
        add: [T or 1, B, ..., C]; None for 0.
    """
    if uses_triton(x, Dynamics(), 1.0, None):
        return _kernels().affine_add(x.detach(), gain, offset, add)
    out = _affine(x, gain, offset)
    return (out if add is None else out + add).to(x.dtype)
