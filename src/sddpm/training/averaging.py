"""One model from several: the mean of their weights.

Runs that continue from one another, or from a common start, end in the same valley of the loss at different places. The
noise of the last steps keeps each of them above the minimum. The mean can have a lower loss, as the mean of one run's
last steps does (EMA), and needs no training: model soups (Wortsman et al., 2022), SWA (Izmailov et al., 2018). Models
that were trained from different starts cannot be averaged in this way.
"""

import shutil
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor

from sddpm.diffusion.solvers import without_moments
from sddpm.diffusion.timesteps import is_distilled, kept_timesteps
from sddpm.errors import UserError
from sddpm.files import Output, atomic_path, check_outputs
from sddpm.models import ANNUNet2DModel
from sddpm.pipelines import SpikingDiffusionPipeline, load_pipeline
from sddpm.training.history import Stage, config_path, stages_of, write_history

DIFFUSION = ("num_train_timesteps", "prediction_type", "beta_schedule", "beta_start", "beta_end")


def mean_state(states: Sequence[Mapping[str, Tensor]], shares: Sequence[float]) -> dict[str, Tensor]:
    """The weighted mean of state dicts with equal keys and shapes; integer tensors are copied from the first."""
    return {
        name: sum((share * state[name] for share, state in zip(shares, states, strict=True)), start=0.0 * value)
        if value.is_floating_point()
        else value
        for name, value in states[0].items()
    }


def average(
    models: Sequence[str | PathLike[str]], out: str | PathLike[str], shares: Sequence[float] | None = None
) -> SpikingDiffusionPipeline:
    """Write the mean of saved models, or of runs, to the folder `out`, with the config and history of the first one.

    Thresholds, an x0_scale and moments saved with a model belong to that model and are left out.

    Args:
        models: at least two, trained from one another or from a common start.
        out: a new folder for the model; training with `init_from=out` continues from it.
        shares: weight of each model, 0 or more, summing to 1; equal by default.

    Raises:
        UserError: fewer than two models, invalid shares, or models that differ in more than their weights.
    """
    out = Path(out)
    check_outputs([Output(out, folder=("model",))], inputs=models, force=True)
    if len(models) < 2:
        raise UserError(f"an average needs two models or more, not {len(models)}")
    shares = [1 / len(models)] * len(models) if shares is None else shares
    if len(shares) != len(models):
        raise UserError(f"there are {len(models)} models and {len(shares)} shares: give one for each")
    if negative := [share for share in shares if share < 0]:  # the variances of batch norm could become negative
        raise UserError(f"a share must be 0 or more, not {negative[0]:g}")
    if not abs(sum(shares) - 1) < 1e-6:  # also refuses nan and inf
        raise UserError(f"the shares must sum to 1, not {sum(shares):g}")
    pipelines = [load_pipeline(model) for model in models]
    for path, pipeline in zip(models[1:], pipelines[1:], strict=True):
        _check_alike(pipelines[0], pipeline, str(models[0]), str(path))
    first = pipelines[0]
    first.unet.load_state_dict(mean_state([pipeline.unet.state_dict() for pipeline in pipelines], shares))
    parts = " + ".join(f"{share:g} {Path(path).name}" for share, path in zip(shares, models, strict=True))
    return save_averaged(first, models[0], out, parts)


def save_averaged(
    pipeline: SpikingDiffusionPipeline, source: str | PathLike[str], out: Path, parts: str
) -> SpikingDiffusionPipeline:
    """Write a model with averaged weights to `out`, without thresholds, x0_scale and moments. It has the config and the
    history of `source`, with one more stage, whose `parts` say what was averaged."""
    unet, before = pipeline.unet, stages_of(source)
    result = SpikingDiffusionPipeline(
        unet,
        without_moments(pipeline.scheduler),
        class_names=pipeline.class_names,
        signal_range=pipeline.signal_range,
        num_inference_steps=pipeline.num_inference_steps if is_distilled(pipeline.scheduler.config) else None,
    )
    stage = Stage(
        what="averaged",
        kind=before[-1].kind if before else "ann" if isinstance(unet, ANNUNet2DModel) else "spiking",
        T=unet.config.get("T", 1),
        parts=parts,
    )
    with atomic_path(out) as temporary:
        result.save_pretrained(temporary)
        write_history(temporary, [*before, stage])
        if (config := config_path(source)) is not None:
            shutil.copyfile(config, temporary / "config.yaml")
    return result


def _noise_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The noise schedule in a scheduler's config that its model was trained with, and the time steps if it was
    distilled."""
    return {key: config.get(key) for key in DIFFUSION} | {
        "timesteps": kept_timesteps(config) if is_distilled(config) else None
    }


def _check_alike(first: SpikingDiffusionPipeline, other: SpikingDiffusionPipeline, name: str, its_name: str) -> None:
    if type(first.unet) is not type(other.unet):
        kinds = (type(first.unet).__name__, type(other.unet).__name__)
        raise UserError(f"{name} is a {kinds[0]} and {its_name} a {kinds[1]}: only models of one kind can be averaged")
    networks = [{k: v for k, v in model.unet.config.items() if not k.startswith("_")} for model in (first, other)]
    noises = [_noise_of(model.scheduler.config) for model in (first, other)]
    for one, another in (networks, noises):
        if different := sorted(key for key in one if one[key] != another.get(key)):
            raise UserError(f"{name} and {its_name} differ in {', '.join(different)}: only weights can be averaged")
    if first.class_names != other.class_names:
        raise UserError(f"{name} and {its_name} differ in their classes: only weights can be averaged")
