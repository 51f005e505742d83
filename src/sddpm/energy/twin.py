"""The ANN to compare with: the same U-Net with activations instead of spikes."""

from collections.abc import Mapping
from typing import Any

from sddpm.models import ANNUNet2DModel

SHARED = ("sample_size", "in_channels", "out_channels", "base_channels", "channel_mult", "num_res_blocks", "patch_size")


def ann_twin(config: Mapping[str, Any], middle_attention: bool = False) -> ANNUNet2DModel:
    """An untrained diffusers U-Net of the widths, depth, patches and image size of a spiking network.

    It evaluates once where the spiking network does T time steps.

    Args:
        config: of the `SpikingUNet2DModel`.
        middle_attention: whether the middle has a block of attention, which the spiking network has not.
    """
    return ANNUNet2DModel(**{key: config[key] for key in SHARED}, middle_attention=middle_attention).eval()
