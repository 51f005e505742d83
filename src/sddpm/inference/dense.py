"""Layers over real values: the first convolution, the shortcuts and the readout. 4 % of a network's arithmetic."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sddpm.inference.folding import FoldedConv


class DenseConv:
    """A same-padded 3x3 convolution, channels last: [1 or T, B, H, W, I] -> [1 or T, B, H, W, O]."""

    def __init__(self, folded: FoldedConv, dtype: torch.dtype, device: torch.device):
        self.weight = folded.weight.to(device, dtype).contiguous(memory_format=torch.channels_last)
        self.scale = None if folded.scale is None else folded.scale.to(device, dtype).view(-1, 1, 1, 1, 1)
        self.bias = folded.bias.to(device, dtype)

    def __call__(self, x: Tensor) -> Tensor:
        images = x.flatten(0, 1).permute(0, 3, 1, 2)
        bias = self.bias[0] if self.scale is None else None
        out = F.conv2d(images, self.weight, bias, padding=1).permute(0, 2, 3, 1).unflatten(0, x.shape[:2])
        return out if self.scale is None else out * self.scale + self.bias[:, None, None, None]


class Shortcut:
    """The 1x1 convolution of a concatenation that is never made: one product for each of its parts, summed.

    [T, B, H, W, I_1], [T, B, H, W, I_2], ... -> [T, B, H, W, O]; `widths` are I_1, I_2, ...
    """

    def __init__(self, folded: FoldedConv, widths: list[int], dtype: torch.dtype, device: torch.device):
        weight = folded.weight[:, :, 0, 0].t().expand(len(folded.bias), -1, -1)  # [S, I, O]
        if folded.scale is not None:
            weight = weight * folded.scale.view(-1, 1, 1)
        self.weights = [part.to(device, dtype).contiguous() for part in weight.split(widths, dim=1)]
        self.bias = folded.bias.to(device, dtype).unsqueeze(1)  # [S, 1, O]

    def __call__(self, parts: list[Tensor]) -> Tensor:
        out = self.bias
        for part, weight in zip(parts, self.weights, strict=True):
            out = torch.baddbmm(out, part.reshape(len(weight), -1, part.shape[-1]), weight)
        return out.view(*parts[0].shape[:-1], -1)
