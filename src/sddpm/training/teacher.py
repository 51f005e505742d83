"""Distillation: a trained network whose predictions are the target of another.

The noise that a network learns to predict is not determined by x_t; the teacher predicts its mean (as far as it has
learned it), so that the gradients of the student have less variance (Hinton et al., 2015, arXiv 1503.02531).
"""

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from sddpm.diffusion.timesteps import is_distilled, kept_timesteps
from sddpm.errors import UserError
from sddpm.inference import compile_model
from sddpm.inference.engine import why_eager
from sddpm.pipelines import load_pipeline
from sddpm.training.config import Config
from sddpm.training.noise import noise_schedule, walk_timesteps
from sddpm.training.objective import Teacher


def _check_evaluations(config: Config, source: str, scheduler: Mapping[str, Any]) -> None:
    """Raise `UserError` if the teacher is itself distilled and would be evaluated at time steps, or use a solver order,
    for which it was not trained."""
    if not is_distilled(scheduler):
        return
    known, distill = kept_timesteps(scheduler), config.distill
    if distill is None:
        raise UserError(f"the teacher {source} was distilled and is only valid at t = {known}: choose its own teacher")
    wanted = walk_timesteps(config.diffusion, distill).flatten().tolist()
    if wanted != known or distill.order != 1:
        raise UserError(
            f"the teacher {source} was distilled and only supports DDIM at t = {known}: it needs distill.order=1 "
            f"and the distill.evaluations, substeps and grid that give these time steps, not t = {wanted}"
        )


def load_teacher(config: Config, accelerator: Accelerator, student: Mapping[str, Any]) -> Teacher | None:
    """The teacher of a run, or None if it has none.

    Args:
        config: config of the run; `train.teacher` names the model, or is None.
        accelerator: its device and precision.
        student: the configuration of the student network.

    Raises:
        UserError: no such model, a model whose predictions do not fit, or one that was distilled itself and would be
            evaluated at other time steps.
    """
    source = config.train.teacher
    if source is None:
        return None
    pipeline = load_pipeline(source, accelerator.device)
    unet, scheduler = pipeline.unet, pipeline.scheduler
    keys = ("in_channels", "out_channels", "sample_size", "dims", "num_classes")
    wanted = {key: student.get(key) for key in keys} | {"prediction_type": config.diffusion.prediction_type}
    found = {key: unet.config.get(key) for key in keys} | {"prediction_type": scheduler.config.prediction_type}
    wanted["dims"], found["dims"] = wanted["dims"] or 2, found["dims"] or 2  # the ANN only supports images
    if other := [f"{key} = {found[key]}, here {wanted[key]}" for key in wanted if found[key] != wanted[key]]:
        raise UserError(f"the teacher {source} does not fit this run: it has {'; '.join(other)}")
    _check_evaluations(config, source, scheduler.config)
    own = noise_schedule(config.diffusion).alphas_cumprod
    theirs = scheduler.alphas_cumprod.to(own)
    if theirs.shape != own.shape or not torch.allclose(theirs, own, atol=1e-5):
        raise UserError(
            f"the teacher {source} has another noise schedule: use the same one for the teacher and the run"
        )
    if config.train.precision == "float64":
        unet.double()
    prepared = _prepared(unet.eval().requires_grad_(False), config, accelerator)

    @torch.no_grad()
    def teach(x_t: Tensor, t: Tensor, labels: Mapping[str, Tensor]) -> Tensor:
        return prepared(x_t, t, return_dict=False, **labels)[0]

    return teach


def _prepared(unet: Any, config: Config, accelerator: Accelerator) -> nn.Module:
    """The network in the form with the fastest predictions: compiled on a CPU, in fast mode if the run itself uses bf16
    (a third of the eager network's time), else in exact mode. A compiled network evaluates the images of each class
    separately, so with classes it would be slower."""
    mode = "fast" if config.train.precision == "bf16" else "exact"
    if accelerator.device.type == "cpu" and not unet.config.get("num_classes") and why_eager(unet, mode) is None:
        return compile_model(unet, mode)
    if config.train.channels_last:
        unet.to(memory_format=torch.channels_last)
    return accelerator.prepare_model(unet, evaluation_mode=True)
