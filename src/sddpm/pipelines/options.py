"""How samples are drawn, in one record: made once, checked once, and passed on to whatever samples.

One more option is a field here (twice: with its default, and as a keyword), a row in `sddpm.cli.options` and the place
that acts upon it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypedDict

from sddpm.diffusion.objectives import check_x0_scale
from sddpm.diffusion.timesteps import check_count, check_timesteps
from sddpm.errors import UserError
from sddpm.models.thresholds import Thresholds

ThresholdSchedule = Thresholds | Callable[[int, int], Thresholds | None] | None
DEFAULT_STEPS = 50
DEFAULT_BATCH_SIZE = 64


@dataclass(frozen=True)
class SamplingOptions:
    """How samples are drawn. None means the model's own, or what is said of it.

    Attributes:
        num_inference_steps: steps of the solver, 1 to the number of training steps; None for the number that is kept
            with the model, or else 50; of time steps, as many as there are.
        solver: a name of `sddpm.diffusion.solvers.SOLVERS`; None for the scheduler that the pipeline holds, whatever
            it is.
        eta: DDIM's share of fresh noise, 0 (deterministic) to 1 (ancestral).
        v_threshold: firing threshold to sample with (threshold guidance, SDDPM section 4.3): a number, a multiple of
            the trained ones such as "0.99x", a dict {layer pattern: threshold}, or a function of (index, t) that gives
            any of them; None for those that threshold guidance keeps with the model, or else the trained ones; {} for
            the trained ones in any case.
        batch_size: how many samples are drawn at a time; None for 64.
        engine: "eager" for the model as it is; "exact" or "fast" for a compiled form
            (`sddpm.inference.compiled.MODES`); "auto" for the exact one where the model has one and it pays, else
            eager.
        exit_tolerance: leave the network for each sample once its readout changes by less than this from one SNN time
            step to the next, relatively (`sddpm.models.early_exit`); None for all T steps. Eager only.
        guidance_scale: how strongly towards the class (classifier-free guidance, Ho & Salimans, 2021): s in
            u + s (c - u), from the model's predictions c with the class and u without; 1 is c itself, all else takes
            twice the evaluations.
        x0_scale: the clean image that the model predicts is taken times this at every step: a little over 1 where
            samples vary less than the data; None for what is kept with the model, or else 1.
        timesteps: at which time steps the network is evaluated, falling, from N - 1 (noise) to 0; None for those that
            are kept with the model, if they are as many as the steps, or else even ones.
        sampler: the name of a sampler that is kept with the model: solver, steps or time steps, and x0_scale, each
            unless given here; "own" for the model's own way; None for the default among them, unless the solver, steps
            or time steps are given, which put it aside.

    Raises:
        UserError: a value that is out of range for every model; steps that are not as many as the time steps.
    """

    num_inference_steps: int | None = None
    solver: str | None = None
    eta: float = 0.0
    v_threshold: ThresholdSchedule = None
    batch_size: int | None = None
    engine: str = "auto"
    exit_tolerance: float | None = None
    guidance_scale: float = 1.0
    x0_scale: float | None = None
    timesteps: Sequence[int] | None = None
    sampler: str | None = None

    def __post_init__(self) -> None:
        steps = self.num_inference_steps
        if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int)):
            raise UserError(f"num_inference_steps must be a whole number, not {steps!r}")
        if not 0.0 <= self.eta <= 1.0:
            raise UserError(f"eta must be from 0 (deterministic) to 1 (ancestral), not {self.eta}")
        if self.batch_size is not None and self.batch_size < 1:
            raise UserError(f"nothing to sample: batch_size must be at least 1, not {self.batch_size}")
        if not 0.0 <= self.guidance_scale < math.inf:
            raise UserError(f"the guidance scale must be a number of at least 0, not {self.guidance_scale}")
        if self.x0_scale is not None:
            check_x0_scale(self.x0_scale)
        if self.timesteps is not None:
            check_timesteps(self.timesteps)
            check_count(steps, self.timesteps)

    def filled(self, **own: Any) -> Self:
        """The options with `own` values where they are None."""
        return replace(self, **{name: value for name, value in own.items() if getattr(self, name) is None})


class SamplingKeywords(TypedDict, total=False):
    """The fields of `SamplingOptions` as keywords of a call, for those who check types; all but batch_size, which
    stands by itself."""

    num_inference_steps: int | None
    solver: str | None
    eta: float
    v_threshold: ThresholdSchedule
    engine: str
    exit_tolerance: float | None
    guidance_scale: float
    x0_scale: float | None
    timesteps: Sequence[int] | None
    sampler: str | None


def with_keywords(
    options: SamplingOptions | None, keywords: SamplingKeywords, batch_size: int | None = None
) -> SamplingOptions:
    """The options, or the defaults, with what the keywords of a call say instead.

    Raises:
        TypeError: a keyword that is no option.
        UserError: as of `SamplingOptions`.
    """
    options = replace(options or SamplingOptions(), **keywords)
    return options if batch_size is None else replace(options, batch_size=batch_size)
