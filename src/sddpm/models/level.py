"""One resolution of the U-Net, and gradient checkpointing, which is chosen level by level."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sddpm.models.batch_norm import frozen_statistics
from sddpm.models.layers import concatenate


class Level(nn.Module):
    """The residual blocks of one resolution, and the layer that changes to the next resolution.

    If `gradient_checkpointing` is set, the activations inside a block are recomputed in the backward pass.
    """

    gradient_checkpointing: bool = False

    def __init__(self, blocks: list[nn.Module], resample: nn.Module | None):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.resample = resample

    def evaluate(self, block: Callable[..., Tensor], h: Tensor, emb: Tensor, skip: Tensor | None = None) -> Tensor:
        """block(h concatenated with skip, emb); with gradient checkpointing only the inputs are kept for backward."""
        if not (self.gradient_checkpointing and torch.is_grad_enabled()):
            return _joined(block, h, emb, skip)
        out = checkpoint(
            _joined,
            *(block, h, emb, skip),
            use_reentrant=False,
            preserve_rng_state=False,  # nothing in a block is random
            context_fn=lambda: (nullcontext(), frozen_statistics(self)),
        )
        assert isinstance(out, Tensor)
        return out


class Levels(nn.ModuleList):
    """The levels of a U-Net, in order."""

    def __iter__(self) -> Iterator[Level]:
        return super().__iter__()  # type: ignore[return-value]


def _joined(block: Callable[..., Tensor], h: Tensor, emb: Tensor, skip: Tensor | None) -> Tensor:
    return block(h if skip is None else concatenate(h, skip), emb)
