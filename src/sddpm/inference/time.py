"""The diffusion step as the biases that it gives to the hidden layers of the residual blocks."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from sddpm.inference.arithmetic import Arithmetic
from sddpm.inference.blocks import ResBlock
from sddpm.inference.folding import double
from sddpm.models.embeddings import TimeEmbedding


class TimeBiases:
    """A diffusion step -> for each block the bias [S, C] of its hidden layer, the folded one included.

    One product for all blocks, in float64 and rounded once; the biases of a step that was asked for are remembered.
    """

    def __init__(self, embedding: TimeEmbedding, blocks: list[ResBlock], arithmetic: Arithmetic):
        self.device, self.dtype = arithmetic.device, arithmetic.dtype
        self.table = double(cast("Tensor", embedding.table))
        self.layers = [(double(layer.weight), double(layer.bias)) for layer in (embedding.linear1, embedding.linear2)]
        self.weight = torch.cat([double(block.projection.weight) for block in blocks])
        self.bias = torch.cat([double(block.projection.bias) + block.hidden_bias for block in blocks], dim=1)
        self.widths = [block.projection.out_features for block in blocks]
        self.known: dict[int, list[Tensor]] = {}

    def __call__(self, t: int) -> list[Tensor]:
        if t not in self.known:
            x = self.table[t]
            for weight, bias in self.layers:
                x = F.silu(weight @ x + bias)  # the second SiLU is the one before the projections
            biases = (self.bias + self.weight @ x).to(self.device, self.dtype)
            self.known[t] = [part.contiguous() for part in biases.split(self.widths, dim=1)]
        return self.known[t]
