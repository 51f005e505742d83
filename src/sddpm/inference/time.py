"""The biases of the residual blocks' hidden layers from the diffusion step and the class."""

from collections import OrderedDict
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sddpm.inference.arithmetic import Arithmetic
from sddpm.inference.blocks import ResBlock
from sddpm.inference.folding import double
from sddpm.models.embeddings import ClassEmbedding, TimeEmbedding
from sddpm.models.input_skip import InputSkip

MOST_BYTES = 2**28


class TimeBiases:
    """A diffusion step (and a class) -> for each block the bias [S, C] of its hidden layer, including the folded bias;
    then, if the network has an input skip, its gains [C, 1, 1].

    One product for all blocks, in float64 and rounded once. The biases that were used last are kept, up to
    `MOST_BYTES`.
    """

    def __init__(
        self,
        embedding: TimeEmbedding,
        classes: ClassEmbedding | None,
        blocks: list[ResBlock],
        skip: InputSkip | None,
        arithmetic: Arithmetic,
    ):
        self.device, self.dtype = arithmetic.device, arithmetic.dtype
        self.table = double(cast("Tensor", embedding.table))
        self.layers = [(double(layer.weight), double(layer.bias)) for layer in (embedding.linear1, embedding.linear2)]
        self.classes = None if classes is None else double(classes.weight)
        self.weight = torch.cat([double(block.projection.weight) for block in blocks])
        self.bias = torch.cat([double(block.projection.bias) + block.hidden_bias for block in blocks], dim=1)
        gain = None if skip is None else cast("nn.Linear", skip.gain[1])
        self.gain = None if gain is None else (double(gain.weight), double(gain.bias))
        self.widths = [block.projection.out_features for block in blocks]
        self.most = max(1, MOST_BYTES // (self.bias.numel() * self.dtype.itemsize))
        self.known: OrderedDict[tuple[int, int | None], list[Tensor]] = OrderedDict()

    def __call__(self, t: int, label: int | None) -> list[Tensor]:
        found = self.known.pop((t, label), None) or self.compute(t, label)
        self.known[t, label] = found  # used last, so dropped last
        while len(self.known) > self.most:
            self.known.popitem(last=False)
        return found

    def compute(self, t: int, label: int | None) -> list[Tensor]:
        """The biases, which are not kept."""
        (weight1, bias1), (weight2, bias2) = self.layers
        x = weight2 @ F.silu(weight1 @ self.table[t] + bias1) + bias2
        if self.classes is not None:
            x = x + self.classes[label]
        active = F.silu(x)
        biases = (self.bias + self.weight @ active).to(self.device, self.dtype)
        found = [part.contiguous() for part in biases.split(self.widths, dim=1)]
        if self.gain is not None:
            weight, bias = self.gain
            found.append((weight @ active + bias).to(self.device, self.dtype)[:, None, None])
        return found
