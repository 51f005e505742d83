"""The state of a run: weights, their average, the optimiser and the progress."""

from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin

from sddpm.diffusion.solvers import make_scheduler
from sddpm.pipelines import SpikingDiffusionPipeline
from sddpm.training.config import Config, DiffusionConfig, DistillConfig
from sddpm.training.ema import make_ema
from sddpm.training.muon import Together
from sddpm.training.noise import walk_timesteps
from sddpm.training.optim import make_optimizer, parameter_groups
from sddpm.training.randomness import generator


@dataclass
class TrainState:
    """model: the weights being trained; ema: their average; step: completed optimiser steps; seconds: spent on them;
    optimizer_since: the step at which the optimiser last started with an empty state (0 unless its state was left out
    of a checkpoint); power: further averages by their relative width (`power_ema`)."""

    model: ModelMixin
    ema: ModelMixin
    optimizer: torch.optim.Optimizer | Together
    step: int = 0
    seconds: float = 0.0
    optimizer_since: int = 0
    power: dict[float, ModelMixin] = field(default_factory=dict)


def build_model(config: Config, channels: int) -> ModelMixin:
    """The untrained network of a config for images of `channels`; the same seed gives the same weights.

    Raises:
        UserError: the numbers do not describe a valid network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator(config.train.seed, "weights", 0).get_state())
        return config.model.network(
            sample_size=config.data.image_size,
            in_channels=channels,
            out_channels=channels,
            num_train_timesteps=config.diffusion.num_train_timesteps,
            **config.model.arguments(),
        )


def make_state(model: ModelMixin, config: Config, device: torch.device) -> TrainState:
    """Model, average and optimiser on `device`, in the config's precision and memory layout."""
    model.to(device)  # pyright: ignore[reportArgumentType]
    if config.train.precision == "float64":
        model.double()
    if config.train.channels_last:
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    model.train()
    optimizer = make_optimizer(parameter_groups(model, config.train), config.train, device)
    return TrainState(
        model, make_ema(model), optimizer, power={width: make_ema(model) for width in config.train.ema_power or ()}
    )


def make_pipeline(
    model: Any, config: DiffusionConfig, distill: DistillConfig | None = None, **about: Any
) -> SpikingDiffusionPipeline:
    """The model with DDIM as its default solver, on its noise schedule and, if it is distilled, with its time steps;
    `about`: facts about its data, as in the pipeline."""
    own = None if distill is None else walk_timesteps(config, distill)[:, 0].tolist()
    about = about if own is None else {**about, "num_inference_steps": len(own)}
    scheduler = make_scheduler(
        "ddim",
        num_train_timesteps=config.num_train_timesteps,
        beta_schedule=config.beta_schedule,
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        prediction_type=config.prediction_type,
        clip_sample=not model.config.get("synaptic_currents", False),  # clamping is not a spiking operation
        timesteps=own,
        distilled=own is not None,
    )
    return SpikingDiffusionPipeline(unet=model, scheduler=scheduler, **about)
