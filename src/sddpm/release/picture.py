"""The picture next to a model card: samples of the released model."""

from pathlib import Path

import torch

from sddpm.data import unit_to_uint8
from sddpm.figures.grid import class_rows, image_grid
from sddpm.figures.signals import signal_grid
from sddpm.pipelines import SpikingDiffusionPipeline
from sddpm.pipelines.class_guidance import class_name
from sddpm.pipelines.wanted import wanted_images

SAMPLES = 64
ROW = 8  # samples of each class
MOST_ROWS = 16  # with more classes, the seeds draw them


def classes_of(pipeline: SpikingDiffusionPipeline) -> list[str]:
    """The names of a model's classes, or their numbers if they have no names; empty without classes."""
    return [class_name(label, pipeline.class_names) for label in range(pipeline.num_classes or 0)]


def draw_samples(pipeline: SpikingDiffusionPipeline, path: Path, progress: bool) -> str:
    """Write samples of the first seeds to a PNG file, with a row for each class if these are few; returns what it
    shows."""
    in_rows = 1 < len(classes_of(pipeline)) <= MOST_ROWS
    count = ROW if in_rows else SAMPLES
    wanted = wanted_images(pipeline, list(range(count)), ["all"] if in_rows else [])
    output = pipeline(seeds=wanted.seeds, class_labels=wanted.labels, output_type="pt", progress=progress)
    samples = torch.as_tensor(output.images)
    if pipeline.signal_range is not None:
        signal_grid(samples, columns=ROW).savefig(path)
    elif wanted.rows is not None:
        class_rows(unit_to_uint8(samples), wanted.rows, scale=2).save(path)
    else:
        image_grid(unit_to_uint8(samples), columns=16, scale=None).save(path)
    return f"{count} samples{' of each class' if in_rows else ''}, seeds 0 to {count - 1}, none left out"
