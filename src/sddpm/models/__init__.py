"""The spiking U-Net and its parts, and the matching network without spikes."""

from sddpm.models.ann import ANNUNet2DModel
from sddpm.models.unet import SpikingUNet2DModel, SpikingUNet2DOutput

__all__ = ["ANNUNet2DModel", "SpikingUNet2DModel", "SpikingUNet2DOutput"]
