"""Preprocessing for Inception: uint8 of any size -> float [B, 3, 299, 299]. FID depends on it, so each has a name."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sddpm.choices import check_choice
from sddpm.evaluation.features.inception import INPUT_SIZE


def pytorch_fid(images: Tensor) -> Tensor:
    """As in pytorch-fid (and SDDPM): bilinear without align_corners and without antialiasing, then [-1, 1]."""
    x = (images.float() / 255).contiguous(memory_format=torch.channels_last)  # faster resizing, bit-identical
    x = F.interpolate(x, size=(INPUT_SIZE, INPUT_SIZE), mode="bilinear", align_corners=False)
    return 2 * x - 1


def clean_fid(images: Tensor) -> Tensor:
    """As in clean-fid (Parmar et al., arXiv 2104.11222) and FSDDIM: antialiased bicubic by Pillow on float channels,
    clipped to 0..255 (as its releases do) but not rounded, then (x - 128) / 128."""
    planes = images.cpu().numpy().astype(np.float32)
    resized = [
        [
            np.asarray(Image.fromarray(plane).resize((INPUT_SIZE, INPUT_SIZE), Image.Resampling.BICUBIC))
            for plane in image
        ]
        for image in planes
    ]
    return (torch.from_numpy(np.array(resized)).clamp(0, 255).to(images.device) - 128) / 128


PREPROCESSINGS: dict[str, Callable[[Tensor], Tensor]] = {"pytorch-fid": pytorch_fid, "clean-fid": clean_fid}


def preprocess(images: Tensor, name: str) -> Tensor:
    """uint8 [B, C, H, W], grey or colour -> Inception's input, float [B, 3, 299, 299]; grey is repeated to RGB.

    Raises:
        UserError: an unknown name of `PREPROCESSINGS`.
    """
    check_choice("preprocessing", name, PREPROCESSINGS)
    return PREPROCESSINGS[name](images).expand(-1, 3, -1, -1)
