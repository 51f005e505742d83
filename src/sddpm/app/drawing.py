"""Drawing of pictures, shown while they are denoised."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from sddpm.app.settings import Settings
from sddpm.data import to_uint8, unit_to_uint8
from sddpm.errors import UserError
from sddpm.figures.grid import class_rows, image_grid
from sddpm.models.thresholds import spiking_neurons
from sddpm.pipelines import DenoisingStep, SamplingOptions, SpikingDiffusionPipeline
from sddpm.pipelines.class_guidance import NO_CLASS, class_name
from sddpm.pipelines.wanted import Wanted


@dataclass(frozen=True)
class Drawing:
    """Pictures during denoising.

    pictures: uint8 [N, C, H, W]; those not started are grey. captions: description of each. rows: names of the classes
    with the same number of pictures each, or None. done, total: evaluations of the network, over all batches.
    """

    pictures: Tensor
    captions: list[str]
    rows: list[str] | None
    done: int
    total: int

    def sheet(self) -> Image.Image:
        """All pictures in one, as written by `sddpm sample`."""
        if self.rows is None:
            return image_grid(self.pictures, scale=None)
        return class_rows(self.pictures, self.rows, scale=None)


def draw(
    pipeline: SpikingDiffusionPipeline, settings: Settings, report: Callable[[Drawing], None] = lambda _: None
) -> Drawing:
    """Draw with the given settings; `report` receives the pictures after every evaluation.

    Raises:
        UserError: settings that are invalid for this model; an exception in `report` ends the work.
    """
    check_pictures(pipeline)
    wanted = settings.wanted(pipeline)
    options = pipeline.resolve_options(settings.options)
    batches = -(-len(wanted.seeds) // (options.batch_size or len(wanted.seeds)))
    total = batches * pipeline.evaluations_of(options)
    config = pipeline.unet.config
    shape = (len(wanted.seeds), config.in_channels, config.sample_size, config.sample_size)
    pictures = torch.full(shape, 128, dtype=torch.uint8)
    captions = captions_of(pipeline, wanted)
    drawn = done = 0

    def after(step: DenoisingStep) -> None:
        nonlocal done
        done += 1
        pictures[drawn : drawn + len(step.x_prev)] = to_uint8(step.x_prev.cpu())
        report(Drawing(pictures.clone(), captions, wanted.rows, done, total))

    stream = pipeline.stream(wanted.seeds, class_labels=wanted.labels, options=options, callback=after, progress=False)
    for _, images in stream:
        pictures[drawn : drawn + len(images)] = unit_to_uint8(images)
        drawn += len(images)
    return Drawing(pictures, captions, wanted.rows, done, total)


def one_picture(pipeline: SpikingDiffusionPipeline, settings: Settings) -> tuple[Wanted, SamplingOptions]:
    """The picture and options for views of a single picture of a spiking network; always with the eager network.

    Raises:
        UserError: more than one seed, settings that are invalid for this model, or a model without spikes.
    """
    check_pictures(pipeline)
    if not spiking_neurons(pipeline.unet):
        raise UserError("this model has no spiking neurons: choose another")
    wanted = settings.wanted(pipeline)
    if len(wanted.seeds) != 1:
        raise UserError(f"give one seed, not {settings.seeds!r}")
    return wanted, pipeline.resolve_options(replace(settings.options, engine="eager"))


def check_pictures(pipeline: SpikingDiffusionPipeline) -> None:
    """Raise `UserError` for a model whose samples are not pictures."""
    pipeline.require_images()
    if (channels := pipeline.unet.config.in_channels) not in (1, 3):
        raise UserError(f"pictures need 1 or 3 channels; this model has {channels}")


def captions_of(pipeline: SpikingDiffusionPipeline, wanted: Wanted) -> list[str]:
    """Seed and class of each picture."""
    if wanted.labels is None:
        return [f"seed {seed}" for seed in wanted.seeds]
    names = pipeline.class_names
    called = [NO_CLASS if label == pipeline.num_classes else class_name(label, names) for label in wanted.labels]
    return [f"seed {seed}, {name}" for seed, name in zip(wanted.seeds, called, strict=True)]
