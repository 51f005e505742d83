"""Interpolation between two noise samples."""

import torch
from torch import Tensor


def slerp(start: Tensor, end: Tensor, weight: float) -> Tensor:
    """Spherical interpolation (Shoemake, 1985) of two tensors of the same shape, each treated as one vector.

    At 0 and 1 this returns the tensors themselves, bit for bit. In between, the norm changes smoothly; a straight line
    would pass through points whose norm is too small for Gaussian noise.
    """
    a, b = start.double().flatten(), end.double().flatten()
    cosine = torch.dot(a, b) / (a.norm() * b.norm())
    angle = torch.acos(cosine.clamp(-1.0, 1.0))
    if angle.sin() < 1e-6:  # parallel: the arc is a line
        mixed = (1 - weight) * a + weight * b
    else:
        mixed = (torch.sin((1 - weight) * angle) * a + torch.sin(weight * angle) * b) / angle.sin()
    if weight in (0, 1):
        mixed = b if weight else a
    return mixed.reshape(start.shape).to(start.dtype)
