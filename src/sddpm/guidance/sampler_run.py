"""The search for a sampler within a number of evaluations: by near pictures, then by a metric, then on fresh seeds."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sddpm.diffusion.solver_registry import SOLVERS
from sddpm.diffusion.timesteps import refuse_other_samplers, takes_timesteps
from sddpm.errors import UserError
from sddpm.evaluation.processes import Processes, launched_processes, local_device
from sddpm.evaluation.run_data import with_run_data
from sddpm.evaluation.settings import make_plan
from sddpm.evaluation.sides import open_sides
from sddpm.guidance.closeness import Closeness, Near, nearest_samplers
from sddpm.guidance.measuring import compare, open_trials
from sddpm.guidance.results import Comparison
from sddpm.guidance.sampler_settings import SamplerSettings, searched_solvers
from sddpm.guidance.search import BudgetSpent, Objective, neighbours
from sddpm.guidance.settings import FRESH
from sddpm.guidance.space import Point
from sddpm.guidance.trials import Trials
from sddpm.opening.files import user_path
from sddpm.pipelines import Sampler, SamplingOptions, SpikingDiffusionPipeline, load_pipeline

FULL_GRIDS = 2  # samplers for which all scales are tried


@dataclass(frozen=True)
class SamplerSpace:
    """Samplers and scales as points (number of the sampler, x0_scale).

    samplers: the first is the model's own solver in even steps, the baseline of all comparisons. own_scale: x0_scale of
    the model. now: the number of the model's current sampler.
    """

    samplers: Sequence[Sampler]
    own_scale: float
    now: Sampler

    @property
    def origin(self) -> Point:
        return 0, self.own_scale

    @property
    def present(self) -> Point:
        """The model's current sampler, whatever its number of evaluations."""
        return len(self.samplers), self.own_scale if self.now.x0_scale is None else self.now.x0_scale

    def sampler(self, point: Point) -> Sampler:
        """The sampler at a point."""
        return replace([*self.samplers, self.now][int(point[0])], x0_scale=point[1])

    def options(self, point: Point) -> dict[str, Any]:
        """Fields of `SamplingOptions` at that point."""
        return self.sampler(point).options()

    def describe(self, point: Point) -> str:
        """The point in words."""
        return str(self.sampler(point))


@dataclass(frozen=True)
class SamplerReport:
    """The result of `guide_sampler`.

    near: for each deterministic solver, the choice nearest to the long solver. trials: on the seeds of the search, in
    the order tried. chosen: the best of them. validation: `chosen` against the origin on fresh seeds; None if it is the
    origin. against_now: `chosen` against the model's current sampler on fresh seeds.
    """

    label: str
    evaluations: int
    space: SamplerSpace
    samples: int
    near: list[Near]
    trials: list[Comparison]
    chosen: Point
    validation: Comparison | None
    against_now: Comparison
    facts: dict[str, Any]

    @property
    def sampler(self) -> Sampler:
        """The choice."""
        return self.space.sampler(self.chosen)

    @property
    def beats_own(self) -> bool:
        """Whether it is significantly better than the model's own solver, with as many evaluations, on fresh seeds."""
        return self.validation is not None and self.validation.difference.below_zero


def guide_sampler(settings: SamplerSettings, say: Callable[[str], None] = lambda line: None) -> SamplerReport | None:
    """Find the solver, its steps or time steps and the x0_scale that sample best within `settings.evaluations`.

    Deterministic solvers are ranked by the distance of their pictures to those of a long one (`Closeness`);
    stochastic ones are candidates with even steps and at the time steps of the nearest. The metric then chooses
    among them and their scales, on the same seeds; the choice is validated on fresh ones. All samples are kept in
    `evaluation.work`, so that an interrupted search can continue. Processes of torchrun share the work; the first
    returns the report, the others None.

    Raises:
        UserError: invalid settings, or nothing that can be searched or measured.
    """
    started = time.perf_counter()
    evaluation = with_run_data(settings.evaluation)
    plan = make_plan(evaluation)
    count = evaluation.samples or plan.protocol.samples
    settings = replace(settings, evaluation=evaluation)
    settings.check(count)
    device = local_device(evaluation.device)
    pipeline = load_pipeline(user_path(evaluation.source), device)
    pipeline.require_images()
    config = pipeline.scheduler.config
    refuse_other_samplers(config)
    long_steps = min(settings.long_steps, int(config.num_train_timesteps))
    steps, noisy = allowed_steps(pipeline, settings)
    with launched_processes() as processes:
        if not processes.first:
            say = lambda line: None  # noqa: E731
        sides = open_sides(evaluation, plan, device)
        digest, label = sides.samples.about["sha256"], plan.metrics[0].label(plan.dim)
        closeness = Closeness(
            pipeline, digest, evaluation.sampling, settings.proxy_seeds, long_steps, plan.work, processes
        )
        table = pipeline.scheduler.alphas_cumprod.cpu()
        near = nearest_samplers(
            lambda solver, timesteps: processes.agree(closeness(solver, timesteps)),
            steps,
            table,
            settings.proxy_budget,
            say,
        )
        space = open_space(pipeline, evaluation.sampling, near, noisy, _own_steps(pipeline, settings))
        trials, about = open_trials(sides, pipeline, space, settings.resamples, processes)
        first = evaluation.sampling.first_seed
        seeds = [first + i * count for i in range(settings.seed_sets)]
        fresh = [FRESH + first + i * count for i in range(settings.validation_sets)]
        values = search_scales(trials, seeds, settings, processes, say, label)
        chosen = min(values, key=values.__getitem__)
        say(f"validating {space.describe(chosen)} on fresh seeds")
        for point in (space.origin, chosen, space.present):
            trials.value(point, fresh)
        if not processes.first:
            return None
        trials = replace(trials, processes=Processes())  # the other processes have returned
        found = [compare(trials, point, seeds) for point in values]
        validation = None if chosen == space.origin else compare(trials, chosen, fresh)
        against_now = compare(trials, chosen, fresh, space.present)
    facts = {
        "model": str(evaluation.source),
        "sha256": digest,
        "metric": label,
        "evaluations": settings.evaluations,
        "samples_per_seed_set": count,
        "first_seeds": seeds,
        "fresh_first_seeds": fresh,
        "proxy": {"seeds": settings.proxy_seeds, "long_steps": long_steps, "budget": settings.proxy_budget},
        **about,
        "device": str(device),
        "processes": processes.count,
        "seconds": round(time.perf_counter() - started, 1),
    }
    return SamplerReport(label, settings.evaluations, space, count, near, found, chosen, validation, against_now, facts)


def evaluations_of(pipeline: SpikingDiffusionPipeline, solver: str | None, steps: int) -> int:
    """The number of network evaluations of a solver with this number of steps."""
    return pipeline.evaluations_of(SamplingOptions(steps, solver))


def _most_steps(pipeline: SpikingDiffusionPipeline, solver: str | None, settings: SamplerSettings) -> int:
    """The largest number of steps of a solver that fits, 0 if none does."""
    evaluations = settings.evaluations
    if settings.evaluation.sampling.guidance_scale != 1:
        evaluations //= 2  # one evaluation with the class and one without
    total = int(pipeline.scheduler.config.num_train_timesteps)
    fitting = range(min(evaluations, total), 0, -1)
    return next((n for n in fitting if evaluations_of(pipeline, solver, n) <= evaluations), 0)


def _own_steps(pipeline: SpikingDiffusionPipeline, settings: SamplerSettings) -> int:
    most = _most_steps(pipeline, None, settings)
    if most == 0:
        raise UserError(f"no sampler fits into `evaluations={settings.evaluations}`: choose a larger number")
    return most


def allowed_steps(
    pipeline: SpikingDiffusionPipeline, settings: SamplerSettings
) -> tuple[list[tuple[str, int]], list[Sampler]]:
    """(solver, steps): for deterministic solvers the largest number of steps that fits and one less, for stochastic
    ones the largest. A model of synaptic currents needs deterministic ones."""
    quiet, noisy = searched_solvers(pipeline.scheduler.config.get("moments") is not None)
    if pipeline.unet.config.get("synaptic_currents"):
        noisy = []
    most = {name: _most_steps(pipeline, name, settings) for name in (*quiet, *noisy)}
    steps = [(name, n) for name in quiet for n in (most[name], most[name] - 1) if n > 0]
    return steps, [Sampler(name, most[name]) for name in noisy if most[name] > 0]


def open_space(
    pipeline: SpikingDiffusionPipeline,
    sampling: SamplingOptions,
    near: Sequence[Near],
    noisy: Sequence[Sampler],
    own_steps: int,
) -> SamplerSpace:
    """The model's own solver in even steps, the nearest two deterministic solvers, and the stochastic ones, in even
    steps and at the nearest time steps."""
    now = pipeline.resolve_options(replace(sampling, engine="eager"))
    present = Sampler(now.solver, now.num_inference_steps, None if now.timesteps is None else tuple(now.timesteps))
    present = replace(present, x0_scale=now.x0_scale)
    own = Sampler(None, own_steps)
    at = near[0].timesteps if near else ()
    chosen = [
        Sampler(each.solver, timesteps=at)
        for each in noisy
        if 0 < len(at) <= (each.num_inference_steps or 0) and takes_timesteps(SOLVERS[str(each.solver)].scheduler_class)
    ]
    others = [*(Sampler(each.solver, timesteps=each.timesteps) for each in near[:2]), *noisy, *chosen]
    others = [each for each in others if each != replace(own, solver=pipeline.solver)]
    return SamplerSpace([own, *others], pipeline.x0_scale, present)


def search_scales(
    trials: Trials,
    seeds: list[int],
    settings: SamplerSettings,
    processes: Processes,
    say: Callable[[str], None],
    label: str,
) -> dict[Point, float]:
    """The metric at every point tried, the origin first: all samplers at scale 1, then the best two at other scales
    until the metric gets worse, then finer scales around the best."""
    space: Any = trials.space
    grid = sorted({*settings.grid, 1.0})
    samplers = len(space.samplers)
    budget = settings.budget
    if budget is None:
        budget = 1 + samplers + FULL_GRIDS * (len(grid) - 1) + 3 * settings.refinements

    def measure(point: Point) -> float:
        value = processes.agree(trials.value(point, seeds))
        if not math.isfinite(value):
            raise UserError(
                f"{label} is not finite at {space.describe(point)} and cannot be compared: choose other scales"
            )
        say(f"{space.describe(point)}: {label} {value:.6g}")
        return value

    objective = Objective(measure, budget)
    try:
        objective(space.origin)
        at_one = {k: objective((float(k), 1.0)) for k in range(samplers)}
        for k in sorted(at_one, key=at_one.__getitem__)[:FULL_GRIDS]:
            for side in ([x for x in grid if x > 1], [x for x in reversed(grid) if x < 1]):
                _follow(objective, k, side)
        for _ in range(settings.refinements):
            k, best = objective.best
            tried = [scale for sampler, scale in objective.values if sampler == k]
            for scale in neighbours(tried, best):
                objective((k, scale))
    except BudgetSpent:
        pass
    return objective.values


def _follow(objective: Objective, sampler: int, scales: Sequence[float]) -> None:
    """Try scales one after another until two in a row are worse than the best of that sampler. The metric has one
    minimum in the scale, so trials far from it are a waste."""
    worse = 0
    for scale in scales:
        value = objective((float(sampler), scale))
        best = min(v for (k, _), v in objective.values.items() if k == sampler)
        worse = worse + 1 if value > best else 0
        if worse == 2:
            return
