"""Embeddings of the diffusion step (a fixed sinusoidal table, then a small network) and of the class of an image."""

import math

import torch
from torch import Tensor, nn


def sinusoidal_table(length: int, channels: int) -> Tensor:
    """[length, channels] float32 with sin and cos interleaved: (sin p f_0, cos p f_0, sin p f_1, ...).

    f_k = exp(-(2k / channels) ln 10000), `channels` even (Vaswani et al., 2017; wiring of SDDPM).
    """
    if torch.get_default_device().type == "meta":  # where a network has only shapes
        return torch.empty(length, channels)
    frequencies = torch.exp(-(torch.arange(0, channels, 2) / channels * math.log(10000)))
    angles = torch.arange(length).float()[:, None] * frequencies[None, :]
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class TimeEmbedding(nn.Module):
    """LongTensor [B] of diffusion steps -> [B, 4 channels]: table, Linear, SiLU, Linear.

    The table is a buffer that is saved with the weights, so that a converted checkpoint keeps its exact values.
    """

    def __init__(self, num_train_timesteps: int, channels: int):
        super().__init__()
        self.register_buffer("table", sinusoidal_table(num_train_timesteps, channels))
        self.linear1 = nn.Linear(channels, 4 * channels)
        self.act = nn.SiLU()
        self.linear2 = nn.Linear(4 * channels, 4 * channels)

    def forward(self, t: Tensor) -> Tensor:
        return self.linear2(self.act(self.linear1(self.table[t])))  # type: ignore[index]


class ClassEmbedding(nn.Embedding):
    """LongTensor [B] of classes -> [B, channels], to be added to the time embedding.

    The row after the last class stands for no class (classifier-free guidance; Ho & Salimans, 2021). All rows start at
    0, so that the network first predicts as one without classes.
    """

    def __init__(self, num_classes: int, channels: int):
        super().__init__(num_classes + 1, channels, _weight=torch.zeros(num_classes + 1, channels))
