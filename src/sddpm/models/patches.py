"""Converts samples (images or signals) to the feature maps [B, C, H, W] of the network, and back."""

import torch.nn.functional as F
from torch import Tensor


def to_patches(sample: Tensor, patch_size: int) -> Tensor:
    """Patches into channels: [B, C, H, W] -> [B, C p^2, H / p, W / p]; a signal [B, C, L] is an image one pixel high:
    -> [B, C p, 1, L / p]."""
    if sample.ndim > 3:  # with synaptic currents the sample can also be [T, B, C, H, W]
        return F.pixel_unshuffle(sample, patch_size)
    return sample.unflatten(2, (-1, patch_size)).transpose(2, 3).flatten(1, 2).unsqueeze(2)


def from_patches(maps: Tensor, patch_size: int, dims: int) -> Tensor:
    """The inverse of `to_patches`; `dims` is 2 for images, 1 for signals."""
    if dims == 2:
        return F.pixel_shuffle(maps, patch_size)
    return maps.squeeze(2).unflatten(1, (-1, patch_size)).transpose(2, 3).flatten(2)
