"""The spiking U-Net and its parts, and the matching network without spikes."""

from importlib import import_module
from typing import TYPE_CHECKING

from sddpm.models.unet import SpikingUNet2DModel, SpikingUNet2DOutput

if TYPE_CHECKING:
    from sddpm.models.ann import ANNUNet2DModel as ANNUNet2DModel

__all__ = ["ANNUNet2DModel", "SpikingUNet2DModel", "SpikingUNet2DOutput"]


def __getattr__(name: str):
    if name == "ANNUNet2DModel":  # on first use: diffusers' U-Net imports scipy.stats, which takes most of a second
        return import_module("sddpm.models.ann").ANNUNet2DModel
    raise AttributeError(f"module 'sddpm.models' has no attribute {name!r}")
