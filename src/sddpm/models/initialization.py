"""The reference's initial weights: Xavier uniform with zero bias nearly everywhere, PyTorch's defaults elsewhere."""

from torch import nn

from sddpm.models.attention import SpikingSelfAttention
from sddpm.models.blocks import SpikingDownsample, SpikingResBlock, SpikingUpsample
from sddpm.models.embeddings import TimeEmbedding

XAVIER = (SpikingResBlock, SpikingDownsample, SpikingUpsample, TimeEmbedding)


def _xavier(module: nn.Module, gain: float = 1.0) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight, gain=gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def initialize(model: nn.Module) -> None:
    """Initialise a `SpikingUNet2DModel` in place.

    The last convolution starts near zero (gain 1e-5), so that the first prediction is near zero. (The reference's
    TSM network starts it at gain 1, which makes no difference: that network is only ever fine-tuned.)

    Attention weights are drawn last. For the same seed, all other weights are then those of a network without
    attention.
    """
    for module in model.modules():
        if isinstance(module, XAVIER):
            _xavier(module)
    _xavier(model.encoder.conv1)  # type: ignore[arg-type]
    _xavier(model.readout.conv, gain=1e-5)  # type: ignore[arg-type]
    for module in model.modules():
        if isinstance(module, SpikingSelfAttention):
            _xavier(module)
