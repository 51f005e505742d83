"""Strict loading of a saved pipeline."""

from os import PathLike

import torch

from sddpm.pipelines.parts import load_parts
from sddpm.pipelines.spiking_diffusion import SpikingDiffusionPipeline


def load_pipeline(path: str | PathLike[str], device: torch.device | str = "cpu") -> SpikingDiffusionPipeline:
    """Load a pipeline saved with `save_pretrained`, one that comes with the package (by name), or user/model on the
    Hugging Face hub. Only the last is downloaded. No pickle is read and no code in a model's folder is executed.

    Unlike `from_pretrained` it refuses missing and unexpected weights.

    Args:
        path: the folder with model_index.json; a run folder, which means its model/; a name of
            `sddpm.pretrained.pretrained_names()`; or user/model.
        device: device of the model.

    Raises:
        UserError: no such folder, a folder without a pipeline, or files that are damaged or inconsistent.
    """
    parts = load_parts(path)
    with parts.naming_the_file():
        pipeline = SpikingDiffusionPipeline(parts.unet, parts.scheduler, **parts.about)
    return pipeline.to(device)
