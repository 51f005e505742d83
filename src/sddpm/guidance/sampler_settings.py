"""What a search for a sampler is asked to do."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sddpm.diffusion.noise import MAX_SEED
from sddpm.diffusion.solver_registry import SOLVERS
from sddpm.errors import UserError
from sddpm.evaluation.metrics import METRICS
from sddpm.evaluation.settings import EvaluationSettings
from sddpm.guidance.settings import FRESH, guiding_metrics

SCALES = (1.0, 1.005, 1.01, 1.02, 1.03, 1.05, 1.08)
ENOUGH = 10_000
"""Samples from which on a biased metric may judge."""


@dataclass(frozen=True)
class SamplerSettings:
    """What a search for a sampler is told; the fields are options of `sddpm guide`.

    evaluation: the model, one metric, the reference, how to sample but for what is searched; `samples` are those of one
    seed set.
    evaluations: of the network, at most, for a picture.
    seed_sets, validation_sets: on which the search by the metric and the verdict measure.
    grid, refinements: x0_scales that are tried, and how often they are refined around the best.
    budget: samplers with a scale tried by the metric at most; None: what the grid needs.
    proxy_seeds: pictures that are compared with those of a long solver; proxy_budget: samplers so tried at most.
    long_steps: steps of that solver, DPM-Solver++.
    resamples: of the bootstrap.
    """

    evaluation: EvaluationSettings
    evaluations: int = 10
    seed_sets: int = 2
    validation_sets: int = 2
    grid: tuple[float, ...] = SCALES
    refinements: int = 2
    budget: int | None = None
    proxy_seeds: int = 64
    proxy_budget: int = 120
    long_steps: int = 100
    resamples: int = 300

    def check(self, samples: int) -> None:
        """Raise `UserError` for values that are out of range, in one line that says what is in it.

        Args:
            samples: of a seed set.
        """
        for name, least in (
            ("evaluations", 1),
            ("seed_sets", 1),
            ("validation_sets", 1),
            ("refinements", 0),
            ("budget", 2),
            ("proxy_seeds", 2),
            ("proxy_budget", 1),
            ("long_steps", 2),
            ("resamples", 20),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"`{name}` must be at least {least}, not {value}")
        for scale in self.grid:
            if not (math.isfinite(scale) and scale > 0):
                raise UserError(f"scales must be positive numbers, not {scale:g}")
        sampling, names = self.evaluation.sampling, self.evaluation.metrics or ()
        for name in ("solver", "num_inference_steps", "timesteps", "sampler", "x0_scale", "eta"):
            if getattr(sampling, name) not in (None, 0):
                raise UserError(f"the search chooses solver, steps and scale itself: leave out `{name}`")
        if len(names) != 1 or names[0] not in guiding_metrics():
            raise UserError(f"guidance goes by one metric: choose one of {', '.join(guiding_metrics())}")
        if not METRICS[names[0]].unbiased and samples < ENOUGH:
            fair = ", ".join(name for name, metric in METRICS.items() if metric.unbiased and metric.distance)
            raise UserError(
                f"{names[0]} of {samples:,} samples prefers those that vary less: choose one of {fair}, or at least "
                f"{ENOUGH:,} `samples`"
            )
        first = sampling.first_seed
        if first < 0 or first + max(self.seed_sets * samples, self.proxy_seeds) > FRESH:
            raise UserError(f"the seeds of the search must lie in 0 to {FRESH - 1}: choose another `first_seed`")
        if FRESH + first + self.validation_sets * samples - 1 > MAX_SEED:
            raise UserError(
                "there are not enough fresh seeds: choose a smaller `first_seed` or fewer `validation_sets`"
            )


def searched_solvers(moments: bool) -> tuple[Mapping[str, bool], Mapping[str, bool]]:
    """The deterministic solvers, and the stochastic ones; those that need moments only where there are `moments`."""
    usable = {name: each.stochastic for name, each in SOLVERS.items() if moments or not each.needs_moments}
    return (
        {name: noisy for name, noisy in usable.items() if not noisy},
        {name: noisy for name, noisy in usable.items() if noisy},
    )
