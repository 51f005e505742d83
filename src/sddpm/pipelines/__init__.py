"""Pipelines: a model and a scheduler together make a picture from a seed."""

from sddpm.pipelines.denoise import DenoisingStep, denoise
from sddpm.pipelines.loading import load_pipeline
from sddpm.pipelines.options import SamplingOptions
from sddpm.pipelines.recorder import DenoisingRecorder
from sddpm.pipelines.samplers import Sampler
from sddpm.pipelines.spiking_diffusion import SpikingDiffusionPipeline

__all__ = [
    "DenoisingRecorder",
    "DenoisingStep",
    "Sampler",
    "SamplingOptions",
    "SpikingDiffusionPipeline",
    "denoise",
    "load_pipeline",
]
