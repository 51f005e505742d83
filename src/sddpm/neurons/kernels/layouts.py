"""How [T, ...] lies in memory: the fused kernels see T dense blocks, in whatever order of dimensions."""

import torch
from torch import Tensor


def dense(x: Tensor) -> bool:
    """Whether x fills its memory without gaps or overlaps, in whatever order of dimensions."""
    expected = 1
    for stride, size in sorted((stride, size) for stride, size in zip(x.stride(), x.shape, strict=True) if size > 1):
        if stride != expected:
            return False
        expected *= size
    return True


def new_like(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Uninitialised [T, ...] in the memory order of x[0], with time outermost."""
    strides = (x[0].numel(), *x.stride()[1:])
    return torch.empty_strided(x.shape, strides, dtype=dtype or x.dtype, device=x.device)


def matching(grad: Tensor, x: Tensor) -> Tensor:
    """grad as it is if each of its time steps lies in memory like those of x, else a copy that does."""
    same = all(a == b for a, b, size in zip(grad.stride()[1:], x.stride()[1:], x.shape[1:], strict=True) if size > 1)
    return grad if same else new_like(x, grad.dtype).copy_(grad)
