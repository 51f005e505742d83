"""The spiking U-Net and its parts, and its twin without spikes."""

from sddpm.models.ann import ANNUNet2DModel
from sddpm.models.unet import SpikingUNet2DModel, SpikingUNet2DOutput

__all__ = ["ANNUNet2DModel", "SpikingUNet2DModel", "SpikingUNet2DOutput"]
