"""The metadata of an exported network: everything needed to sample from it."""

from collections.abc import Mapping
from typing import Any

import diffusers
import torch

import sddpm
from sddpm.diffusion.schedule import OUR_NAMES
from sddpm.diffusion.solvers import clips_sample
from sddpm.errors import UserError
from sddpm.models.thresholds import Thresholds, spiking_neurons
from sddpm.pipelines import SpikingDiffusionPipeline
from sddpm.pipelines.threshold_guidance import StagedThresholds


def own_thresholds(pipeline: SpikingDiffusionPipeline) -> Thresholds | None:
    """The firing thresholds that a model samples with; None for the trained ones. Raises `UserError` if they change
    during sampling, because an exported network has a single set of thresholds."""
    kept = pipeline.guided_thresholds
    if isinstance(kept, StagedThresholds):
        raise UserError(
            "this model samples with thresholds that change during sampling, but an exported network has a single set:"
            ' give v_threshold, such as 1.0, or "1x" for the trained ones'
        )
    return kept


def describe(pipeline: SpikingDiffusionPipeline, *, rates: bool) -> dict[str, Any]:
    """The metadata of a model, as JSON values.

    network, config: of the U-Net. scheduler: [module, class]. scheduler_config: its config. solver, x0_scale: the
    model's own. num_inference_steps, samplers, sampler: as saved with the model, or null. schedule:
    num_train_timesteps, beta_schedule, beta_start, beta_end, or null if the scheduler has another schedule; with
    prediction_type, clip_sample, x0_scale, and the stored timesteps and distilled of scheduler_config, this is all that
    a solver needs. range: the values of the darkest and the brightest pixel in x_0. signal_range, class_names: null or
    as in the pipeline. thresholds: by layer. firing_rates: the layers of that output, or null. versions.
    """
    config, scheduler = pipeline.unet.config, pipeline.scheduler
    noise = scheduler.config
    known = noise.get("beta_schedule") in OUR_NAMES and noise.get("trained_betas") is None
    names = ("num_train_timesteps", "beta_start", "beta_end")
    schedule = {name: noise[name] for name in names} | {"beta_schedule": OUR_NAMES.get(noise.get("beta_schedule"))}
    neurons = spiking_neurons(pipeline.unet)
    return {
        "network": type(pipeline.unet).__name__,
        "config": _public(config),
        "scheduler": [type(scheduler).__module__, type(scheduler).__name__],
        "scheduler_config": _public(noise),
        "solver": pipeline.solver,
        "schedule": schedule if known else None,
        "prediction_type": noise["prediction_type"],
        "clip_sample": clips_sample(scheduler),
        "x0_scale": pipeline.x0_scale,
        "num_inference_steps": pipeline.config.get("num_inference_steps"),
        "samplers": {name: sampler.to_dict() for name, sampler in pipeline.samplers.items()} or None,
        "sampler": pipeline.config.get("sampler"),
        "T": config.get("T"),
        "range": [-1.0, 1.0],
        "signal_range": pipeline.signal_range,
        "class_names": pipeline.class_names,
        "thresholds": {name: neuron.v_threshold for name, neuron in neurons.items()},
        "firing_rates": list(neurons) if rates else None,
        "versions": {
            "sddpm": sddpm.__version__,
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
        },
    }


def _public(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if not key.startswith("_")}
