"""What may be computed once per model instead of once per evaluation."""

import copy

import torch
from torch import nn

from sddpm.models.blocks import SpikingResBlock
from sddpm.models.unet import SpikingUNet2DModel


@torch.no_grad()
def fold_time(model: SpikingUNet2DModel) -> SpikingUNet2DModel:
    """A copy for inference whose time embedding is a table: one row of biases per diffusion step in each block.

    The time embedding and its projections depend on nothing but t, so their multiplications are done here, once for
    every t. The copy's `time_embedding` hands t on, and each block's `time_projection` looks up its row of
    [num_train_timesteps, out_channels], which an accelerator adds as the bias of conv1 (its batch norm folded).
    """
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    table: torch.Tensor = folded.time_embedding.table  # type: ignore[assignment]
    embedding = folded.time_embedding(torch.arange(len(table), device=table.device))
    for block in folded.modules():
        if isinstance(block, SpikingResBlock):
            rows = block.time_projection(embedding)
            block.time_projection = nn.Embedding.from_pretrained(rows)  # type: ignore[assignment]
    folded.time_embedding = nn.Identity()  # type: ignore[assignment]
    return folded
