"""A model as small as a diffusers model can be."""

from contextlib import contextmanager
from types import SimpleNamespace

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn


class PointwiseModel(ModelMixin, ConfigMixin):
    """Answers each pixel by itself with one multiplication, so that a picture is bit-identical in any batch."""

    @register_to_config
    def __init__(self, sample_size: int = 4, in_channels: int = 1):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.9))
        self.dropout = nn.Dropout(0.5)  # would show if the model were left in training mode
        self.v_threshold = 1.0
        self.thresholds_seen = []

    def forward(self, sample, timestep):
        self.thresholds_seen.append(self.v_threshold)
        return SimpleNamespace(sample=self.dropout(sample * self.scale))

    @contextmanager
    def at_threshold(self, value):
        before, self.v_threshold = self.v_threshold, value
        try:
            yield
        finally:
            self.v_threshold = before
