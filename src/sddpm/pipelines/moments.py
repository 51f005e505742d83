"""Measures the moments that Analytic-DPM needs on the model that will sample, and saves them with it."""

import json
from collections.abc import Iterable
from os import PathLike
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from sddpm.data import to_model
from sddpm.diffusion.moments import Moments, MomentSums
from sddpm.diffusion.objectives import predict_epsilon
from sddpm.diffusion.schedule import add_noise
from sddpm.errors import UserError
from sddpm.files import atomic_path
from sddpm.models.config import sample_shape
from sddpm.opening.json_files import read_json
from sddpm.pipelines.class_guidance import ClassGuidance
from sddpm.pipelines.denoise import predict
from sddpm.pipelines.resolving import own_folder, pipeline_folder
from sddpm.pipelines.spiking_diffusion import SpikingDiffusionPipeline
from sddpm.pipelines.threshold_guidance import StagedThresholds

CONFIG_FILE = "scheduler/scheduler_config.json"


def measure_moments(
    pipeline: SpikingDiffusionPipeline,
    batches: Iterable[tuple[Tensor, Tensor | None]],
    *,
    count: int,
    seed: int = 0,
    progress: bool = True,
) -> Moments:
    """E ||epsilon(x_t, t)||^2 / d of a pipeline's model at every diffusion step, with its standard error.

    The model is evaluated with its sampling thresholds. Each image has the same noise at all t.

    Args:
        pipeline: the pipeline with model and noise schedule.
        batches: images as the model was trained on, uint8 [B, C, H, W], and their classes, LongTensor [B];
            None for no class. Batches are not kept in memory.
        count: total number of images, for the progress bar and for refusing too few.
        seed: seed of the noise.
        progress: whether to show a bar.

    Raises:
        UserError: fewer than 3 images, images of another shape than the model's, or a model that predicts NaN.
    """
    if count < 3:
        raise UserError(f"moments need at least 3 images, not {count}")
    unet, scheduler = pipeline.unet, pipeline.scheduler
    steps, alphas_cumprod = scheduler.config.num_train_timesteps, scheduler.alphas_cumprod.cpu()
    guided = pipeline.guided_thresholds
    model = pipeline.model_for("auto")
    generator, sums = torch.Generator().manual_seed(seed), MomentSums(steps)
    with tqdm(total=steps * count, desc="moments", unit="image", disable=not progress) as bar:
        for images, labels in batches:
            _check_shape(unet.config, images)
            guidance = None if labels is None else ClassGuidance(labels.to(unet.device), pipeline.num_classes or 0)
            x0 = to_model(images, torch.float64 if unet.dtype == torch.float64 else torch.float32)
            noise = torch.randn(x0.shape, generator=generator, dtype=torch.float32, device="cpu").to(x0.dtype)
            predicted = torch.empty(steps, len(images), dtype=torch.float64)
            for t in range(steps):
                x_t = add_noise(alphas_cumprod, x0, noise, t).to(unet.device)
                thresholds = guided(0, t) if isinstance(guided, StagedThresholds) else guided
                output = predict(model, x_t, t, thresholds, guidance)
                epsilon = predict_epsilon(scheduler.config.prediction_type, alphas_cumprod, output, x_t, t)
                predicted[t] = epsilon.double().square().flatten(1).mean(1).cpu()
                bar.update(len(images))
            if not predicted.isfinite().all():
                raise UserError("the model predicted NaN or infinity: it has no moments")
            sums.add(predicted, noise.double().square().flatten(1).mean(1))
    return sums.result()


def read_moments(path: str | PathLike[str]) -> dict[str, Any] | None:
    """The moments saved with the model in a folder, as from `Moments.to_dict`; None if there are none. Raises
    `UserError`."""
    return read_json(pipeline_folder(path) / CONFIG_FILE).get("moments")


def keep_moments(path: str | PathLike[str], moments: Moments) -> None:
    """Write moments into the config of a saved model's scheduler, atomically. Raises `UserError`."""
    file = own_folder(path) / CONFIG_FILE
    content = json.dumps({**read_json(file), "moments": moments.to_dict()}, indent=2, sort_keys=True)
    with atomic_path(file) as temporary:
        temporary.write_text(content + "\n", encoding="utf-8")


def _check_shape(config: Any, images: Tensor) -> None:
    if tuple(images.shape[1:]) != sample_shape(config):
        expected, found = (" x ".join(map(str, shape)) for shape in (sample_shape(config), images.shape[1:]))
        raise UserError(f"the model needs images of {expected}, these are {found}")
