"""Pipelines: a model and a scheduler together make a picture from a seed."""

from importlib import import_module
from typing import TYPE_CHECKING

from sddpm.pipelines.denoise import DenoisingStep, denoise
from sddpm.pipelines.options import SamplingOptions
from sddpm.pipelines.recorder import DenoisingRecorder
from sddpm.pipelines.samplers import Sampler

if TYPE_CHECKING:
    from sddpm.pipelines.loading import load_pipeline as load_pipeline
    from sddpm.pipelines.spiking_diffusion import SpikingDiffusionPipeline as SpikingDiffusionPipeline

__all__ = [
    "DenoisingRecorder",
    "DenoisingStep",
    "Sampler",
    "SamplingOptions",
    "SpikingDiffusionPipeline",
    "denoise",
    "load_pipeline",
]

# Imported on first use: diffusers' pipelines take seconds to import, and `sddpm sample` does not need them.
_LAZY = {
    "SpikingDiffusionPipeline": "sddpm.pipelines.spiking_diffusion",
    "load_pipeline": "sddpm.pipelines.loading",
}


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'sddpm.pipelines' has no attribute {name!r}")
