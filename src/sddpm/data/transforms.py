"""Conversion between stored pixels (uint8, 0..255) and the model's scale (float, [-1, 1]); horizontal flips."""

import torch
from torch import Tensor


def to_model(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 of any shape -> float in [-1, 1]: x / 127.5 - 1. `to_uint8` inverts it exactly for all 256 values. Floats
    (signals) are already in the model's scale."""
    if images.is_floating_point():
        return images.to(dtype)
    return (images.to(torch.float32) / 127.5 - 1).to(dtype)


def to_uint8(images: Tensor) -> Tensor:
    """Float of any shape, nominally in [-1, 1] -> uint8, rounded and clamped as for an image file.

    Computed in float32 at least. NaN becomes 0.
    """
    wide = images if images.dtype == torch.float64 else images.float()
    return ((wide + 1) * 127.5).round().clamp(0, 255).nan_to_num(0.0).to(torch.uint8)


def unit_to_uint8(images: Tensor) -> Tensor:
    """Float in [0, 1] of any shape, as returned by a pipeline -> uint8, rounded as for an image file."""
    return (images * 255).round().to(torch.uint8)


def random_flip(batch: Tensor, generator: torch.Generator | None = None, probability: float = 0.5) -> Tensor:
    """Mirrors each image of [B, C, H, W] left to right with the given probability.

    It draws one number per image on the CPU, so that a CPU generator gives the same flips on every device.
    """
    flip = torch.rand(len(batch), generator=generator) < probability
    return torch.where(flip.to(batch.device)[:, None, None, None], batch.flip(-1), batch)
