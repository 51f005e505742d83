"""Settings of a search for a sampler."""

import math
from dataclasses import dataclass

from sddpm.diffusion.noise import MAX_SEED
from sddpm.diffusion.solver_registry import SOLVERS
from sddpm.diffusion.timesteps import takes_timesteps
from sddpm.errors import UserError
from sddpm.evaluation.metrics import METRICS
from sddpm.evaluation.settings import EvaluationSettings
from sddpm.guidance.settings import FRESH, guiding_metrics

SCALES = (1.0, 1.005, 1.01, 1.02, 1.03, 1.05, 1.08)
ENOUGH = 10_000
"""Number of samples from which a biased metric may be used."""


@dataclass(frozen=True)
class SamplerSettings:
    """Settings of a search for a sampler; the fields are options of `sddpm guide`.

    evaluation: the model, one metric, the reference, and all sampling settings that are not searched; `samples` are
    those of one seed set.
    evaluations: maximum number of network evaluations per picture.
    seed_sets, validation_sets: numbers of seed sets for the search by the metric and for the verdict.
    grid, refinements: x0_scales to try, and how often they are refined around the best.
    budget: maximum number of pairs of sampler and scale to measure; None: as many as the grid needs.
    proxy_seeds: number of pictures to compare with a long solver's; proxy_budget: maximum number of such samplers.
    long_steps: steps of the long solver, DPM-Solver++.
    resamples: number of bootstrap resamples.
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
        """Raise `UserError` for values that are out of range.

        Args:
            samples: number of samples in a seed set.
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
            raise UserError(f"guidance uses one metric: choose one of {', '.join(guiding_metrics())}")
        if not METRICS[names[0]].unbiased and samples < ENOUGH:
            fair = ", ".join(name for name, metric in METRICS.items() if metric.unbiased and metric.distance)
            raise UserError(
                f"{names[0]} of {samples:,} samples is biased towards less variation: choose one of {fair}, or at "
                "least "
                f"{ENOUGH:,} `samples`"
            )
        first = sampling.first_seed
        if first < 0 or first + max(self.seed_sets * samples, self.proxy_seeds) > FRESH:
            raise UserError(f"the seeds of the search must lie in 0 to {FRESH - 1}: choose another `first_seed`")
        if FRESH + first + self.validation_sets * samples - 1 > MAX_SEED:
            raise UserError(
                "there are not enough fresh seeds: choose a smaller `first_seed` or fewer `validation_sets`"
            )


def searched_solvers(moments: bool) -> tuple[list[str], list[str]]:
    """The deterministic solvers that take time steps, and the stochastic ones; those that need moments only if
    `moments` is true."""
    usable = {name: each for name, each in SOLVERS.items() if moments or not each.needs_moments}
    return (
        [name for name, each in usable.items() if not each.stochastic and takes_timesteps(each.scheduler_class)],
        [name for name, each in usable.items() if each.stochastic],
    )
