"""A spiking U-Net of 8 x 8 grey pixels that evaluates in milliseconds."""

import torch

from sddpm.models import SpikingUNet2DModel


def tiny_unet(**options) -> SpikingUNet2DModel:
    torch.manual_seed(0)
    sizes = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "base_channels": 8, "channel_mult": (1, 2)}
    return SpikingUNet2DModel(**{**sizes, "num_res_blocks": 1, "T": 2, **options}).eval()
