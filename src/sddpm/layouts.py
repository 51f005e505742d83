"""Memory layouts: fused kernels need dense blocks with any order of dimensions, or channels innermost."""

import torch
from torch import Tensor


def dense(x: Tensor) -> bool:
    """Whether x fills its memory without gaps or overlaps, with any order of dimensions."""
    if x.is_contiguous() or channels_innermost(x):  # the usual case, and fast to check
        return True
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return True
    expected = 1
    for stride, size in sorted((stride, size) for stride, size in zip(x.stride(), x.shape, strict=True) if size > 1):
        if stride != expected:
            return False
        expected *= size
    return True


def new_like(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An uninitialised tensor [T, ...] with the memory layout of x[0] and time outermost."""
    strides = (x[0].numel(), *x.stride()[1:])
    return torch.empty_strided(x.shape, strides, dtype=dtype or x.dtype, device=x.device)


def matching(grad: Tensor, x: Tensor) -> Tensor:
    """grad itself if each of its time steps has the memory layout of those of x, else a copy that has."""
    same = all(a == b for a, b, size in zip(grad.stride()[1:], x.stride()[1:], x.shape[1:], strict=True) if size > 1)
    return grad if same else new_like(x, grad.dtype).copy_(grad)


def channels_innermost(x: Tensor) -> bool:
    """Whether x is [T, B, C, H, W], contiguous except for C, which is innermost in memory."""
    return x.dim() == 5 and x.permute(0, 1, 3, 4, 2).is_contiguous()


def innermost(x: Tensor) -> Tensor:
    """[T, B, C, H, W] or [N, C, H, W] unchanged or as a copy, with C innermost in memory."""
    return x.movedim(-3, -1).contiguous().movedim(-1, -3)
