"""Parts of a model that can be computed once per model instead of once per evaluation."""

import copy

import torch
from torch import Tensor, nn

from sddpm.models.blocks import SpikingResBlock
from sddpm.models.unet import SpikingUNet2DModel


@torch.no_grad()
def fold_time(model: SpikingUNet2DModel) -> SpikingUNet2DModel:
    """A copy for inference whose time embedding is a table: one row of biases per diffusion step in each block. It
    cannot be saved.

    The time embedding and its projections depend only on t and the class, so their multiplications are done here, once
    for every t (and for every class and for no class). In the copy, the embeddings add up to a row number, and each
    block's `time_projection` looks this row up in a table [num_train_timesteps, out_channels] (with classes: one row
    for each pair of t and class). An accelerator adds the row as the bias of conv1, with its batch norm folded in.
    """
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    table: torch.Tensor = folded.time_embedding.table  # type: ignore[assignment]
    embedding = folded.time_embedding(torch.arange(len(table), device=table.device))
    classes = folded.class_embedding
    if classes is not None:
        embedding = (embedding[:, None] + classes.weight).flatten(0, 1)  # row = t * (num_classes + 1) + class
    for block in folded.modules():
        if isinstance(block, SpikingResBlock):
            rows = block.time_projection(embedding)
            block.time_projection = nn.Embedding.from_pretrained(rows)  # type: ignore[assignment]
    if folded.skip is not None:
        folded.skip.gain = nn.Embedding.from_pretrained(folded.skip.gain(embedding))  # type: ignore[assignment]
    folded.time_embedding = _RowOfStep(1 if classes is None else len(classes.weight))  # type: ignore[assignment]
    folded.class_embedding = None if classes is None else nn.Identity()  # type: ignore[assignment]
    return folded


class _RowOfStep(nn.Module):
    """t -> the first row of that diffusion step in a table with `rows` rows per step."""

    def __init__(self, rows: int):
        super().__init__()
        self.rows = rows

    def forward(self, t: Tensor) -> Tensor:
        return t * self.rows
