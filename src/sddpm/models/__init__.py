"""The spiking U-Net and its parts."""

from sddpm.models.unet import SpikingUNet2DModel, SpikingUNet2DOutput

__all__ = ["SpikingUNet2DModel", "SpikingUNet2DOutput"]
