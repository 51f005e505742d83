"""Guidance: search, validate on fresh seeds, judge the cheap proxy."""

import math
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from sddpm.data.registry import find_dataset
from sddpm.errors import UserError
from sddpm.evaluation.processes import Processes, launched_processes, local_device
from sddpm.evaluation.run_data import with_run_data
from sddpm.evaluation.settings import EvaluationSettings, make_plan
from sddpm.evaluation.sides import open_sides
from sddpm.evaluation.sources import Samples, open_reference_images
from sddpm.guidance.bootstrap import estimate, spearman
from sddpm.guidance.measuring import compare, open_trials
from sddpm.guidance.proxy import NoisyImages, bin_edges
from sddpm.guidance.results import Comparison, GuidanceReport, Loss, Proxy
from sddpm.guidance.search import BudgetSpent, Objective, coordinate_search, grid_search
from sddpm.guidance.settings import GuidanceSettings, SearchPlan, default_held_out, guiding_metrics, plan_search
from sddpm.guidance.space import Point, Space, make_space
from sddpm.guidance.trials import Trials
from sddpm.models.thresholds import spiking_neurons
from sddpm.opening.files import user_path
from sddpm.pipelines import load_pipeline

FIRST_STEP = 0.04  # of the coordinate search
_LEAST_FOR_RANKS = 4


def guide(settings: GuidanceSettings, say: Callable[[str], None] = lambda line: None) -> GuidanceReport | None:
    """Find firing thresholds, or an x0_scale, with which a model samples better than with the trained ones.

    Samples, features, losses and resampled distances are kept in `evaluation.work`, so that an interrupted search can
    continue. If several processes were started by torchrun, they share the sampling; the first returns the report, the
    others None. Nothing is saved with the model: see `sddpm.guidance.store`.

    Args:
        settings: what to search for, and how to measure.
        say: called with lines of progress.

    Raises:
        UserError: invalid settings, or nothing that can be searched or measured.
    """
    started = time.perf_counter()
    settings = replace(settings, evaluation=with_run_data(given := settings.evaluation))
    evaluation = settings.evaluation
    if evaluation.sampling.v_threshold is not None:
        raise UserError("guidance chooses the thresholds itself: leave out v_threshold")
    if evaluation.sampling.x0_scale is not None and settings.search.endswith("x0-scale"):
        raise UserError("guidance chooses the scale itself: leave out x0_scale")
    if len(evaluation.metrics or ()) != 1 or (evaluation.metrics or ("",))[0] not in guiding_metrics():
        raise UserError(f"guidance uses one metric: choose one of {', '.join(guiding_metrics())}")
    plan = make_plan(evaluation)
    metric = plan.metrics[0]
    device = local_device(evaluation.device)
    pipeline = load_pipeline(user_path(evaluation.source), device)
    pipeline.require_images()
    pipeline.resolve_options(evaluation.sampling)  # for its checks
    scaling = [name for name, sampler in pipeline.samplers.items() if sampler.x0_scale is not None]
    if settings.search.endswith("x0-scale") and (used := pipeline.sampler_of(evaluation.sampling)) in scaling:
        raise UserError(
            f"the sampler {used} of this model has an x0_scale of its own, which would be used instead: search for a"
            " sampler, or give `sampler=own`"
        )
    trained = {name: neuron.v_threshold for name, neuron in spiking_neurons(pipeline.unet).items()}
    total = int(pipeline.scheduler.config.num_train_timesteps)
    space = make_space(trained, settings.search, settings.groups, settings.boundary, total)
    search = plan_search(settings, len(space.axes), evaluation.samples or plan.protocol.samples)
    with launched_processes() as processes:
        if not processes.first:
            say = lambda line: None  # noqa: E731
        sides = open_sides(evaluation, plan, device)
        samples = sides.samples
        noisy, images, held_out = _noisy_images(settings, given, samples, total)
        if space.scaled:  # the loss is lowest without a scale, so it is no proxy here
            noisy = None
        trials, about = open_trials(sides, pipeline, space, settings.resamples, processes, noisy)
        label = metric.label(plan.dim)
        say(_announce(settings, search, space, samples, label))
        values = _search(trials, search, settings, space, processes, say, label)
        chosen = min(values, key=values.__getitem__)
        if chosen != space.origin:
            say(f"validating {space.describe(chosen)} on fresh seeds")
            for point in (space.origin, chosen):
                trials.value(point, search.validation_seeds)
        if not processes.first:
            return None
        trials = replace(trials, processes=Processes())  # the other processes have returned
        say("intervals")
        found = [compare(trials, point, search.search_seeds) for point in values]
        validation = None if chosen == space.origin else compare(trials, chosen, search.validation_seeds)
        proxy = _judge_proxy(trials, found, images, held_out, total, say) if noisy is not None else None
    fixed = ["solver", "steps", "timesteps", "eta", "batch_size", "engine"]
    fixed += ([] if space.scaled else ["x0_scale"]) + ([] if space.groups else ["v_threshold"])
    facts = {
        "model": str(evaluation.source),
        "sha256": samples.about["sha256"],
        "metric": label,
        "sampling": {key: samples.about[key] for key in fixed},
        "default_with_own_scale": pipeline.default_sampler if pipeline.default_sampler in scaling else None,
        "samples_per_seed_set": samples.count,
        **about,
        "preprocessing": plan.preprocessing if metric.network == "inception" else None,
        "device": str(device),
        "processes": processes.count,
        "work": str(plan.work),
        "seconds": round(time.perf_counter() - started, 1),
    }
    return GuidanceReport(label, space, search, samples.count, found, chosen, validation, proxy, facts)


def _announce(settings: GuidanceSettings, search: SearchPlan, space: Space, samples: Samples, label: str) -> str:
    axes = "" if space.axes == ["threshold"] else f" ({', '.join(space.axes)})"
    steps = samples.about["steps"]
    images = search.budget * settings.seed_sets * samples.count
    return (
        f"{search.method} search by {label}{axes}: at most {search.budget} choices x {settings.seed_sets} seed sets "
        f"x {samples.count:,} samples = {images:,} images of {steps} steps, then fresh seeds for the verdict"
    )


def _search(
    trials: Trials,
    search: SearchPlan,
    settings: GuidanceSettings,
    space: Space,
    processes: Processes,
    say: Callable[[str], None],
    label: str,
) -> dict[Point, float]:
    """The metric at every point tried; the trained model is the first."""

    def measure(point: Point) -> float:
        value = processes.agree(trials.value(point, search.search_seeds))
        if not math.isfinite(value):
            raise UserError(
                f"{label} is not finite at {space.describe(point)} and cannot be compared: choose a smaller range"
            )
        say(f"{space.describe(point)}: {label} {value:.6g}")
        return value

    objective = Objective(measure, search.budget)
    try:
        objective(space.origin)
        if search.method == "grid":
            grid_search(objective, search.grid, settings.refinements)
        else:
            step = min(FIRST_STEP, settings.high - 1, 1 - settings.low)
            coordinate_search(objective, space.origin, settings.low, settings.high, step)
    except BudgetSpent:
        pass
    return objective.values


def _noisy_images(
    settings: GuidanceSettings, given: EvaluationSettings, samples: Samples, num_train_timesteps: int
) -> tuple[NoisyImages | None, str, bool]:
    """Images for the loss, evenly spaced over the held-out set; their description; whether they are held out.

    given: the evaluation settings before the run's settings were added, which may name other images.
    """
    where = default_held_out(settings)
    if settings.proxy_images == 0 or where is None:
        return None, "", False
    entry = find_dataset(where)
    split = "test" if entry is not None and "test" in entry.splits else "train"
    dataset = open_reference_images(with_run_data(replace(given, reference=where)), split, samples)
    count = min(settings.proxy_images, len(dataset))
    chosen = torch.linspace(0, len(dataset) - 1, count).round().long()
    held_out = split == "test" or settings.held_out is not None
    name = f"{count} images of {where}" + (f", {split} split" if entry is not None else "")
    return NoisyImages.of(dataset.gather(chosen), num_train_timesteps), name, held_out


def _judge_proxy(
    trials: Trials,
    found: list[Comparison],
    images: str,
    held_out: bool,
    num_train_timesteps: int,
    say: Callable[[str], None],
) -> Proxy:
    origin = trials.space.origin
    losses = []
    for each in found:
        say(f"loss at {trials.space.describe(each.point)}")
        rows = trials.losses(each.point)
        change = float(rows.mean() - trials.losses(origin).mean())
        resampled = trials.resampled_losses(each.point) - trials.resampled_losses(origin)
        losses.append(Loss(each.point, float(rows.mean()), estimate(change, resampled), rows.mean(0).tolist()))
    enough = len(found) >= _LEAST_FOR_RANKS
    correlation, p_value = (
        spearman([loss.value for loss in losses], [each.value for each in found]) if enough else (math.nan, 1.0)
    )
    return Proxy(losses, correlation, p_value, images, held_out, bin_edges(num_train_timesteps))
