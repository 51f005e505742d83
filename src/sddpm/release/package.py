"""A released model: the folder of a pipeline with half-precision weights, its config, samples and its card."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch

import sddpm
from sddpm.choices import check_choice
from sddpm.diffusion.objectives import check_x0_scale
from sddpm.diffusion.solvers import switch_solver
from sddpm.diffusion.timesteps import chosen_timesteps
from sddpm.energy import load_cost_model, measure_sampling
from sddpm.energy.account import Account
from sddpm.energy.cost import cost_model_names
from sddpm.energy.measure import deployed
from sddpm.energy.twin import twin_ledger
from sddpm.errors import UserError
from sddpm.files import Output, atomic_path, check_outputs
from sddpm.opening.checksums import write_checksums
from sddpm.opening.networks import WEIGHTS_NAME
from sddpm.pipelines import SpikingDiffusionPipeline, load_pipeline
from sddpm.pipelines.base import check_own_steps
from sddpm.pipelines.class_guidance import drawn_by_seed
from sddpm.pipelines.hub import make_loadable
from sddpm.pipelines.samplers import OWN
from sddpm.release.card import CardFacts, card_text
from sddpm.release.evaluations import read_evaluations, read_result
from sddpm.release.picture import classes_of, draw_samples
from sddpm.release.weights import halve_file
from sddpm.training import Config, load_config, read_metrics
from sddpm.training.config_files import to_yaml
from sddpm.training.history import stages_of, write_history

ENERGY_SAMPLES = 8


def release(
    run: Path,
    out: Path,
    *,
    name: str | None = None,
    hardware: str,
    licence: str = "apache-2.0",
    evaluations: Iterable[Path] = (),
    solver: str | None = None,
    x0_scale: float | None = None,
    steps: int | None = None,
    timesteps: Sequence[int] | None = None,
    sampler: str | None = None,
    progress: bool = True,
) -> CardFacts:
    """Write the model of a training run to `out`, in half precision and with a card.

    If `out` already has a model with these weights, its files are kept byte for byte, so that its evaluations remain
    valid; only the files about it are written again.

    Args:
        run: the folder of a training run: config.yaml, metrics.jsonl, model/; or of an average of runs.
        out: the folder to write; replaced as a whole if it exists.
        name: the name of the model; by default the folder's name.
        hardware: the training hardware, in words.
        licence: SPDX name of the weights' licence.
        evaluations: JSON files of `sddpm evaluate`, of the released model: release once, evaluate, release again.
        solver: the default solver, a name of `sddpm.diffusion.solvers.SOLVERS`; None for ddim.
        x0_scale: the default factor of the predicted clean image.
        steps, timesteps: the defaults; None for those of the run's model, also for x0_scale.
        sampler: which of the samplers saved with the run's model is the default, or "own" for none of them; None for
            the current default. All samplers are copied.
        progress: whether to show progress bars, for the count of operations and for the samples.

    Raises:
        UserError: not a complete run, an unknown solver, an invalid scale, defaults that the default sampler would
            hide, weights out of the range of half precision, or evaluations of another model.
    """
    evaluations = list(evaluations)
    check_outputs([Output(out, folder=("model",))], inputs=[run, *evaluations], force=True)
    for file in evaluations:
        read_result(file)  # for its checks, before the long work
    config = _config_of(run)
    stages = stages_of(run)
    averaged = bool(stages) and stages[-1].what == "averaged"
    if not averaged and not read_metrics(run):
        raise UserError(f"{run} has no metrics: train it first")
    pipeline = load_pipeline(run)
    if sampler is None and pipeline.default_sampler is not None:
        given = {"solver": solver, "x0_scale": x0_scale, "steps": steps, "timesteps": timesteps}
        for option in [name for name, value in given.items() if value is not None]:
            raise UserError(
                f"the default sampler {pipeline.default_sampler} of {run} would hide `{option}`: give `sampler=own` too"
            )
    with atomic_path(out) as temporary:
        scheduler: Any = switch_solver(pipeline.scheduler, solver or "ddim")
        if timesteps is not None:
            chosen_timesteps(steps, timesteps, scheduler.config)  # for its checks
            scheduler.register_to_config(timesteps=list(timesteps))
        pipeline.register_modules(scheduler=scheduler)
        if (count := steps if timesteps is None else len(timesteps)) is not None:
            check_own_steps(count, scheduler)
            pipeline.register_to_config(num_inference_steps=count)
        if sampler is not None:
            check_choice("sampler", sampler, [*pipeline.samplers, OWN])
            pipeline.register_to_config(sampler=sampler)
        if x0_scale is not None:
            check_x0_scale(x0_scale)
            pipeline.register_to_config(x0_scale=None if x0_scale == 1 else x0_scale)
        pipeline.unet.register_to_config(_name_or_path=name or out.name)  # instead of the folder it was loaded from
        pipeline.save_pretrained(temporary, safe_serialization=True)
        weights = temporary / "unet" / WEIGHTS_NAME
        if not weights.is_file():
            raise UserError(f"{run} has a model of several weight files: release supports a single file")
        halve_file(weights)
        write_checksums(weights.parent)
        _keep_model(out, temporary)
        scores = read_evaluations(evaluations, temporary)
        released = load_pipeline(temporary)
        facts = CardFacts(
            name=name or out.name,
            config=config,
            stages=stages,
            hardware=hardware,
            licence=licence,
            parameters=sum(p.numel() for p in released.unet.parameters()),
            account=_account(released, name or out.name, progress),
            steps=released.num_inference_steps if released.default_sampler is None else None,
            samplers={name: str(each) for name, each in released.samplers.items()},
            sampler=released.default_sampler,
            timesteps=released.timesteps,
            evaluations=scores,
            picture=draw_samples(released, temporary / "samples.png", progress),
            classes=classes_of(released),
            versions=f"sddpm {sddpm.__version__}, diffusers {diffusers.__version__}, torch {torch.__version__}",
        )
        (temporary / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
        write_history(temporary, facts.stages)
        (temporary / "README.md").write_text(card_text(facts), encoding="utf-8")
    return facts


def _keep_model(before: Path, folder: Path) -> None:
    """Put the model files of `before` into `folder` if both have the same weights and sampling options. Another version
    of the package may write other configs, with more settings, and evaluations identify a model by the hash of its
    files."""
    old, new = (path / "unet" / WEIGHTS_NAME for path in (before, folder))
    if not old.is_file() or old.read_bytes() != new.read_bytes():
        return
    one, other = map(load_pipeline, (before, folder))
    kept = all(value in (None, one.about[name]) for name, value in other.about.items() if name != "x0_scale")
    kept = kept and other.scheduler.config.get("moments") in (None, one.scheduler.config.get("moments"))
    if kept and (one.solver, one.timesteps, one.x0_scale) == (other.solver, other.timesteps, other.x0_scale):
        for file in sorted(before.rglob("*.json")):
            shutil.copyfile(file, folder / file.relative_to(before))
        make_loadable(folder)


def _config_of(run: Path) -> Config:
    """The run's config without the folders (of its data and its teacher) of the training machine."""
    path = run / "config.yaml"
    if not path.is_file():
        raise UserError(f"{run} is not a training run: it has no config.yaml")
    config = load_config(path)
    data, train = config.data.model_copy(update={"path": None}), config.train
    if train.teacher is not None:
        train = train.model_copy(update={"teacher": Path(train.teacher).name})
    return config.model_copy(update={"data": data, "train": train})


def _account(pipeline: SpikingDiffusionPipeline, title: str, progress: bool) -> Account:
    counted = deployed(pipeline)
    ledger = measure_sampling(
        counted,
        range(ENERGY_SAMPLES),
        class_labels=drawn_by_seed(counted.num_classes),
        title=title,
        progress=progress,
    )
    costs = [load_cost_model(cost) for cost in cost_model_names()]
    return Account(ledger, costs, twin_ledger(counted) if ledger.spiking and counted.signal_range is None else None)
