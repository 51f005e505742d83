"""A cheap proxy for a sampler's quality: the distance of its pictures to those of a long deterministic solver.

It ranks solvers and time steps at x0_scale 1. It cannot choose a scale, because the distance grows with the scale even
where quality improves. It cannot judge a stochastic solver, whose pictures of a seed are different ones.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sddpm.diffusion.spacings import SPACINGS
from sddpm.evaluation.processes import Processes
from sddpm.evaluation.sampling import SamplingSettings, label_of, sampling_key
from sddpm.evaluation.shards import Shards, fill
from sddpm.guidance.search import BudgetSpent, Objective
from sddpm.hashes import short_hash
from sddpm.pipelines import SpikingDiffusionPipeline

LONG = "dpm++"


@dataclass(frozen=True)
class Closeness:
    """Compares pictures of the same seeds; results are kept in `work`.

    digest: of the model. sampling: all settings except solver and time steps. count: seeds, from sampling.first_seed.
    """

    pipeline: SpikingDiffusionPipeline
    digest: str
    sampling: SamplingSettings
    count: int
    long_steps: int
    work: Path
    processes: Processes

    def __call__(self, solver: str, timesteps: Sequence[int]) -> float:
        """The root mean square difference over all pixels, whose range is -1 to 1."""
        settings = self._settings(solver=solver, timesteps=tuple(timesteps))
        return math.sqrt(float(self._errors(settings).mean()))

    def _settings(self, **how: Any) -> SamplingSettings:
        return replace(self.sampling, x0_scale=1.0, **how)

    def _errors(self, settings: SamplingSettings) -> Tensor:
        """Mean squared difference of each picture, float64 [count]."""
        long = self._shards("long", self._long(), lambda settings, i: self._pictures(settings, i).numpy())

        def make(settings: SamplingSettings, i: int) -> Any:
            start, stop = long.bounds[i]
            target = torch.from_numpy(long[start:stop])
            return (self._pictures(settings, i) - target).double().square().flatten(1).mean(1).numpy()

        identity = sampling_key(self.digest, self._long(), self.pipeline)
        return torch.from_numpy(self._shards(f"closeness-{identity}", settings, make)[:])

    def _long(self) -> SamplingSettings:
        return self._settings(solver=LONG, num_inference_steps=self.long_steps)

    def _shards(self, kind: str, settings: SamplingSettings, make: Callable[[SamplingSettings, int], Any]) -> Shards:
        name = short_hash(f"{kind} {sampling_key(self.digest, settings, self.pipeline)}")
        size = settings.batch_size or 50
        shards = Shards(self.work / "closeness" / name, self.count, size)
        fill(
            shards.missing(), lambda i: shards.write(i, make(settings, i)), self.processes, "proxy", len(shards.bounds)
        )
        return shards

    def _pictures(self, settings: SamplingSettings, i: int) -> Tensor:
        """The pictures of batch i, float32 [B, C, H, W] in [-1, 1]."""
        size = settings.batch_size or 50
        seeds = range(i * size, min((i + 1) * size, self.count))
        batches = self.pipeline.stream(
            [settings.first_seed + seed for seed in seeds],
            class_labels=label_of(settings, self.pipeline),
            options=settings,
            progress=False,
        )
        return torch.cat([images for _, images in batches]).float() * 2 - 1


@dataclass(frozen=True)
class Near:
    """A solver with its time steps, and the distance of its pictures to the long solver's."""

    solver: str
    timesteps: tuple[int, ...]
    distance: float


def nearest_samplers(
    distance: Callable[[str, Sequence[int]], float],
    steps: Iterable[tuple[str, int]],
    alphas_cumprod: Tensor,
    budget: int,
    say: Callable[[str], None] = lambda line: None,
) -> list[Near]:
    """The best time steps of each solver, nearest first.

    First all spacings of all solvers are measured. From the nearest one, a compass search over whole time steps
    continues: each time step but the first moves up or down, by strides that are halved when none helps, down to 1.

    Args:
        distance: (solver, time steps) -> the value to minimise.
        steps: allowed pairs (solver, number of steps).
        alphas_cumprod: table [N].
        budget: number of distances to measure.
        say: called with lines of progress.
    """
    allowed = list(steps)
    names = list(dict.fromkeys(solver for solver, _ in allowed))

    def measure(point: tuple[float, ...]) -> float:
        return distance(names[int(point[0])], [int(t) for t in point[1:]])

    objective = Objective(measure, budget)
    try:
        for solver, n in allowed:
            for name, spacing in SPACINGS.items():
                value = objective((names.index(solver), *spacing(n, alphas_cumprod)))
                say(f"{solver}, {n} steps, {name}: {value:.4f} from the long solver")
        _descend(objective, len(alphas_cumprod))
    except BudgetSpent:
        pass
    best: dict[str, Near] = {}
    for (k, *timesteps), value in sorted(objective.values.items(), key=lambda item: item[1]):
        near = Near(names[int(k)], tuple(map(int, timesteps)), value)
        best.setdefault(near.solver, near)
    found = list(best.values())
    if found:
        say(f"nearest: {found[0].solver} at {', '.join(map(str, found[0].timesteps))}: {found[0].distance:.4f}")
    return found


def _descend(objective: Objective, total: int) -> None:
    """Search from the best point; raises `BudgetSpent`."""
    solver, *best = map(int, objective.best)
    value = objective((solver, *best))
    stride = max(total // (4 * len(best)), 1)
    while stride >= 1:
        moved = False
        for i in range(1, len(best)):
            for change in (-stride, stride):
                t = best[i] + change
                below = best[i + 1] if i + 1 < len(best) else -1
                if not below < t < best[i - 1]:
                    continue
                tried = [*best[:i], t, *best[i + 1 :]]
                if (found := objective((solver, *tried))) < value:
                    best, value, moved = tried, found, True
                    break
        stride = stride if moved else stride // 2
