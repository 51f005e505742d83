"""Neurons with what stands before them, and an affine map with a sum: one kernel on CUDA devices, else in turn."""

import torch
from torch import Tensor, nn

from sddpm.neurons.functional import Dynamics
from sddpm.neurons.kernels import multi_step, uses_triton


def normalized_multi_step(
    x: Tensor,
    norm: nn.BatchNorm2d,
    dynamics: Dynamics,
    *,
    shift: Tensor | None = None,
    v_threshold: float = 1.0,
    w: Tensor | None = None,
    **parameters: Tensor,
) -> Tensor:
    """Spikes of the currents norm(x) + shift: in one kernel where there is one (CUDA, while training), else in turn.

    Fused, neither the normalised currents nor their sum with the shift are ever written, or kept for the backward
    pass, and both are float32 inside also for bfloat16 x.

    Args:
        x: [T, B, C, H, W].
        norm: batch norm over [T, B, C, H, W].
        dynamics: what neuron.
        shift: [B, C], the same at all time steps (the time embedding's); None for 0.
        v_threshold: firing threshold.
        w: PLIF's learned scalar.
        parameters: what other neurons have learned, by name.

    Raises:
        UserError: as `multi_step`.
    """
    if uses_triton(x, dynamics, v_threshold, w):
        from sddpm.neurons.kernels import triton_channels

        if triton_channels.unfusable(x, norm) is None:
            return triton_channels.normalized_multi_step(x, norm, dynamics, shift=shift, v_threshold=v_threshold, w=w)
    currents = norm(x) if shift is None else norm(x) + shift[:, :, None, None]
    return multi_step(currents, dynamics, v_threshold=v_threshold, w=w, **parameters)


def _affine(x: Tensor, gain: Tensor | None, offset: Tensor | None) -> Tensor:
    space = [1] * (x.dim() - 3)
    if gain is not None:
        x = x * gain.view(len(gain), 1, *space, -1)
    return x if offset is None else x + offset.view(*offset.shape[:2], *space, -1)


def affine_multi_step(
    x: Tensor,
    dynamics: Dynamics,
    *,
    gain: Tensor | None = None,
    offset: Tensor | None = None,
    v_threshold: float = 1.0,
    w: Tensor | None = None,
    dtype: torch.dtype | None = None,
    out: Tensor | None = None,
    **parameters: Tensor,
) -> Tensor:
    """Spikes of the currents gain x + offset, without gradients: in one kernel on CUDA devices, else in turn.

    Args:
        x: [T, B, ..., C], channels innermost.
        dynamics: what neuron.
        gain: [T or 1, 1 or C]; None for 1.
        offset: [T or 1, B or 1, C]; None for 0.
        v_threshold: firing threshold.
        w: PLIF's learned scalar.
        dtype: of the spikes; None for that of x.
        out: where to write them, e.g. a slice of the channels of a contiguous [T, B, ..., C'].
        parameters: what other neurons have learned, by name.

    Returns:
        Spikes [T, B, ..., C], 0 or 1.

    Raises:
        UserError: as `multi_step`.
    """
    if uses_triton(x, dynamics, v_threshold, w):
        from sddpm.neurons.kernels import triton_channels

        return triton_channels.affine_multi_step(
            x.detach(), dynamics, gain=gain, offset=offset, v_threshold=v_threshold, w=w, dtype=dtype, out=out
        )
    with torch.no_grad():
        currents = _affine(x, gain, offset)
        spikes = multi_step(currents, dynamics, v_threshold=v_threshold, w=w, **parameters).to(dtype or x.dtype)
    return spikes if out is None else out.copy_(spikes)


@torch.no_grad()
def affine_add(
    x: Tensor, *, gain: Tensor | None = None, offset: Tensor | None = None, add: Tensor | None = None
) -> Tensor:
    """gain x + offset + add in the type of x, without gradients; x may be overwritten.

    Args:
        x: [T, B, ..., C], contiguous.
        gain: [T or 1, 1 or C]; None for 1.
        offset: [T or 1, B or 1, C]; None for 0.
        add: [T or 1, B, ..., C]; None for 0.
    """
    if uses_triton(x, Dynamics(), 1.0, None):
        from sddpm.neurons.kernels import triton_channels

        return triton_channels.affine_add(x.detach(), gain, offset, add)
    out = _affine(x, gain, offset)
    return (out if add is None else out + add).to(x.dtype)
