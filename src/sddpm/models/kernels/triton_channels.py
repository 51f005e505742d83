"""Neurons fused with the layer before them on a GPU: a per-channel affine map for inference, batch norm for training.

The arithmetic is float32, whatever the dtype of the currents, so nothing is rounded between the two layers. For
training, the normalised currents are never written: backward keeps the output of the convolution and reads it twice.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sddpm.models.kernels import triton_channel_kernels as kernels
from sddpm.neurons.functional import Dynamics
from sddpm.neurons.kernels.ids import SURROGATE_IDS, charge_id
from sddpm.neurons.kernels.triton_neuron import (
    block_size,
    launch,
    numbers,
    power_of_two,
    programs_for,
    surrogate_constants,
)

FORWARD_TILES, BACKWARD_TILES = 4, 16  # number of pixel tiles that share the loads, or the sums, of their channels


def _tile(T: int, channels: int) -> tuple[int, int]:
    """Pixels and channels of a tile."""
    width = min(128, max(16, power_of_two(channels)))
    return max(1, block_size(T) // width), width


def _grid(x: Tensor, tiles: int) -> tuple[dict[str, int], tuple[int, int, int]]:
    """Sizes of tiles, and the grid of programs, for x [T, B, P, C]."""
    T, images, pixels, channels = x.shape
    rows, width = _tile(T, channels)
    tiles = min(tiles, programs_for(pixels, rows))
    grid = (programs_for(pixels, rows * tiles), images, programs_for(channels, width))
    return {"BP": rows, "BC": width, "TILES": tiles}, grid


def _stride(x: Tensor | None, dim: int) -> int:
    return x.stride(dim) if x is not None and x.shape[dim] > 1 else 0


def _affine_parts(gain: Tensor | None, offset: Tensor | None, channels: int) -> tuple[Tensor | None, Tensor | None]:
    """Gain and offset in the form the kernels need: float32, all channels, innermost."""
    gain = None if gain is None else gain.float().expand(len(gain), channels).contiguous()
    return gain, None if offset is None else offset.float().contiguous()


def affine_multi_step(
    x: Tensor,
    dynamics: Dynamics,
    *,
    centre: Tensor | None = None,
    gain: Tensor | None = None,
    offset: Tensor | None = None,
    v_threshold: float = 1.0,
    w: Tensor | None = None,
    dtype: torch.dtype | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Spikes of the currents (x - centre) gain + offset, without gradients.

    Args:
        x: [T, B, ..., C], channels innermost; a time stride of 0 stands for T equal time steps.
        dynamics: the neuron.
        centre: [C]; None for 0.
        gain: [T or 1, 1 or C]; None for 1.
        offset: [T or 1, B or 1, C]; None for 0.
        v_threshold: firing threshold.
        w: PLIF's learned scalar.
        dtype: of the spikes; None for that of x.
        out: where to write the spikes, e.g. a slice of the channels of a contiguous [T, B, ..., C'].

    Returns:
        Spikes [T, B, ..., C], 0 or 1.
    """
    T, B, *_, channels = x.shape
    spikes = torch.empty(x.shape, dtype=dtype or x.dtype, device=x.device) if out is None else out
    rows = (x[0].contiguous().expand(x.shape) if x.stride(0) == 0 else x.contiguous()).view(T, B, -1, channels)
    written = spikes.view(rows.shape)
    gain, offset = _affine_parts(gain, offset, channels)
    centre = None if centre is None else centre.float().contiguous()
    leak = w.sigmoid().float() if w is not None and dynamics.neuron == "plif" else None
    v_threshold, rest, start, leak = numbers(dynamics, float(v_threshold), leak)
    blocks, grid = _grid(rows, FORWARD_TILES)
    launch(
        kernels.channel_forward_kernel,
        grid,
        x,
        *(rows, centre, gain, offset, written, leak),
        # The pixel stride of the slice: that of a view is another where there is one pixel.
        *(rows.shape[2], channels, rows.stride(0), written.stride(0), spikes.stride(-2)),
        *(_stride(gain, 0), _stride(offset, 0), _stride(offset, 1), v_threshold, rest, start),
        T=T,
        CHARGE=charge_id(dynamics),
        HARD=dynamics.v_reset is not None,
        **blocks,
    )
    return spikes


def affine_add(x: Tensor, gain: Tensor | None, offset: Tensor | None, add: Tensor | None) -> Tensor:
    """x gain + offset + add, rounded once, written into x, without gradients.

    Args:
        x: [T, B, ..., C], contiguous.
        gain: [T or 1, 1 or C]; None for 1.
        offset: [T or 1, B or 1, C]; None for 0.
        add: of the shape of x, or with one time step that stands for all; None for 0.
    """
    rows = x.view(*x.shape[:2], -1, x.shape[-1])
    gain, offset = _affine_parts(gain, offset, x.shape[-1])
    add = None if add is None else add.contiguous().view(-1, *rows.shape[1:])
    blocks, grid = _grid(rows, FORWARD_TILES)
    launch(
        kernels.channel_add_kernel,
        grid,
        x,
        *(rows, gain, offset, add, rows, rows.shape[2], rows.shape[3], rows.stride(0), _stride(add, 0)),
        *(_stride(gain, 0), _stride(offset, 0), _stride(offset, 1)),
        T=rows.shape[0],
        **blocks,
    )
    return x


class _NormalizedNeuron(torch.autograd.Function):
    """Spikes of x [T, B, P, C], contiguous; weight [C], offset [B or 1, C]. mean and var [C] get no gradient."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, offset: Tensor, leak, mean, var, eps, dynamics, v_threshold):
        scale = torch.rsqrt(var + eps)
        gain = weight.float() * scale
        spikes = torch.empty_like(x)
        ctx.save_for_backward(x, weight, offset, leak, mean, scale)
        ctx.dynamics, ctx.v_threshold = dynamics, v_threshold
        v_threshold, rest, start, leak = numbers(dynamics, v_threshold, leak)
        blocks, grid = _grid(x, FORWARD_TILES)
        launch(
            kernels.channel_forward_kernel,
            grid,
            x,
            *(x, mean, gain, offset, spikes, leak),
            *(x.shape[2], x.shape[3], x.stride(0), spikes.stride(0), x.shape[3]),
            *(0, 0, _stride(offset, 0), v_threshold, rest, start),
            T=x.shape[0],
            CHARGE=charge_id(dynamics),
            HARD=dynamics.v_reset is not None,
            **blocks,
        )
        return spikes

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        x, weight, offset, leak, mean, scale = ctx.saved_tensors
        dynamics, grad = ctx.dynamics, grad.contiguous()
        gain = weight.float() * scale
        grad_x = torch.empty_like(x)
        blocks, grid = _grid(x, BACKWARD_TILES)
        v_threshold, rest, start, leak_number = numbers(dynamics, ctx.v_threshold, leak)

        def run(sums: bool, constant: Tensor, slope: Tensor, *partial: Tensor) -> None:
            launch(
                kernels.channel_backward_kernel,
                grid,
                x,
                *(x, mean, gain, offset, grad, leak_number, grad_x, constant, slope, *partial),
                *(x.shape[2], x.shape[3], x.stride(0), grad.stride(0), grad_x.stride(0)),
                *(_stride(offset, 0), v_threshold, rest, start, *surrogate_constants(dynamics)),
                T=x.shape[0],
                CHARGE=charge_id(dynamics),
                SURROGATE=SURROGATE_IDS[dynamics.surrogate],
                HARD=dynamics.v_reset is not None,
                DETACH=dynamics.detach_reset,
                SUMS=sums,
                **blocks,
            )

        partial = x.new_empty(3, x.shape[1], grid[0], x.shape[3], dtype=torch.float32)
        run(True, gain, gain, *partial)
        total, moment = partial[0].sum(1), partial[1].sum((0, 1))  # [B, C] and [C]
        count = x.numel() / x.shape[3]
        run(False, gain * total.sum(0) / -count, gain * scale.square() * moment / -count, *partial)
        grad_offset = total.sum_to_size(offset.shape)
        grad_leak = None if leak is None else partial[2].sum(dtype=torch.float64).to(leak)
        return grad_x, (moment * scale).to(weight), grad_offset, grad_leak, None, None, None, None, None


def unfusable(x: Tensor, norm: nn.BatchNorm2d) -> str | None:
    """Why batch norm in training mode cannot be fused with the neurons after it, or None if it can."""
    if not norm.training:
        return "batch norm is not in training mode"
    if norm.weight is None or norm.running_mean is None or norm.momentum is None:
        return "batch norm lacks its parameters, running statistics or momentum"
    if isinstance(norm, nn.SyncBatchNorm) or getattr(norm, "spans_processes", bool)():
        return "batch norm spans several processes"
    return None if x.dim() == 5 else "the currents are not [T, B, C, H, W]"


def normalized_multi_step(
    x: Tensor,
    norm: nn.BatchNorm2d,
    dynamics: Dynamics,
    *,
    shift: Tensor | None = None,
    v_threshold: float = 1.0,
    w: Tensor | None = None,
) -> Tensor:
    """Spikes of norm(x) + shift in training mode, where `unsupported` and `unfusable` allow it.

    Args:
        x: [T, B, C, H, W]; copied first unless channels are innermost in memory.
        norm: its statistics span T, B, H and W; its running statistics are updated (unless it is `frozen`).
        dynamics: the neuron.
        shift: [B, C], the same at all time steps (the time embedding's); None for 0.
        v_threshold: firing threshold.
        w: PLIF's learned scalar.

    Returns:
        Spikes [T, B, C, H, W] in the dtype of x, channels innermost, differentiable.
    """
    rows = x.permute(0, 1, 3, 4, 2).contiguous()
    images = rows.flatten(0, 1).permute(0, 3, 1, 2).detach()
    assert norm.momentum is not None and norm.num_batches_tracked is not None
    with torch.no_grad():
        frozen = getattr(norm, "frozen", False)
        running = (None, None) if frozen else (norm.running_mean, norm.running_var)
        norm.num_batches_tracked.add_(not frozen)
        statistics = images.float() if x.device.type == "cpu" else images  # the CPU would return them in bfloat16
        mean, var = torch.batch_norm_update_stats(statistics, *running, norm.momentum)
    offset = norm.bias.float().unsqueeze(0) if shift is None else norm.bias.float() + shift.float()
    leak = w.sigmoid().float() if w is not None and dynamics.neuron == "plif" else None
    spikes: Any = _NormalizedNeuron.apply(
        rows.flatten(2, 3), norm.weight, offset, leak, mean, var, norm.eps, dynamics, float(v_threshold)
    )
    return spikes.view(rows.shape).permute(0, 1, 4, 2, 3)
