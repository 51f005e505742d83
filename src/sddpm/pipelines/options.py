"""All sampling options in one record: made once, checked once, and passed on.

A new option needs a field here (twice: with its default, and as a keyword), a row in `sddpm.cli.options` and the code
that uses it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypedDict

from sddpm.diffusion.noise import check_noise_clip
from sddpm.diffusion.objectives import check_x0_scale
from sddpm.diffusion.timesteps import check_count, check_timesteps
from sddpm.errors import UserError
from sddpm.models.thresholds import Thresholds

ThresholdSchedule = Thresholds | Callable[[int, int], Thresholds | None] | None
DEFAULT_STEPS = 50
DEFAULT_BATCH_SIZE = 64


@dataclass(frozen=True)
class SamplingOptions:
    """How samples are drawn. None means the model's own value unless described otherwise.

    Attributes:
        num_inference_steps: solver steps, 1 to the number N of training steps; None for the number saved with the
            model, else min(50, N). With time steps it is their number.
        solver: a name of `sddpm.diffusion.solvers.SOLVERS`; None for the pipeline's own scheduler.
        eta: DDIM's share of fresh noise, 0 (deterministic) to 1 (ancestral).
        v_threshold: firing threshold for sampling (threshold guidance, SDDPM section 4.3): a number, a multiple of the
            trained ones such as "0.99x", a dict {layer pattern: threshold}, or a function of (index, t) that returns
            any of these; None for those that threshold guidance saved with the model, else the trained ones; {} always
            for the trained ones.
        batch_size: number of samples drawn at a time; None for 64.
        engine: "eager" for the unchanged model; "exact" or "fast" for a compiled form
            (`sddpm.inference.compiled.MODES`); "auto" for the exact form if the model has one and it is faster, else
            eager.
        exit_tolerance: stop evaluating the network for a sample when the relative change of its readout from one SNN
            time step to the next is below this (`sddpm.models.early_exit`); None for all T steps. Eager only.
        guidance_scale: strength of guidance towards the class (classifier-free guidance, Ho & Salimans, 2021): s in
            u + s (c - u), with the model's predictions c with the class and u without; 1 gives c itself, all other
            values need twice the evaluations.
        x0_scale: factor of the predicted clean image at every step: a little over 1 if samples vary less than the data;
            None for the value saved with the model, else 1.
        noise_clip: limit of the initial noise in standard deviations, for solvers that add no noise: spiking neurons
            saturate, and pixels with stronger noise than they can represent stay as speckles. None or infinity for no
            limit.
        timesteps: time steps of the network evaluations, decreasing, from N - 1 (noise) to 0; None for those saved with
            the model, if their number matches the steps, else even ones.
        sampler: the name of a sampler saved with the model, which sets solver, steps or time steps, x0_scale and
            noise_clip, each unless given here; "own" for the model's own values; None for the default sampler, unless
            the solver, steps or time steps are given, which override it.

    Raises:
        UserError: a value that is out of range for every model; a number of steps that differs from that of the time
            steps.
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
    noise_clip: float | None = None

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
        if self.noise_clip is not None:
            check_noise_clip(self.noise_clip)
        if self.timesteps is not None:
            check_timesteps(self.timesteps)
            check_count(steps, self.timesteps)

    def filled(self, **own: Any) -> Self:
        """The options with values from `own` instead of None."""
        return replace(self, **{name: value for name, value in own.items() if getattr(self, name) is None})


class SamplingKeywords(TypedDict, total=False):
    """The fields of `SamplingOptions` as keywords of a call, for type checkers; all but batch_size, which is a separate
    argument."""

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
    noise_clip: float | None


def with_keywords(
    options: SamplingOptions | None, keywords: SamplingKeywords, batch_size: int | None = None
) -> SamplingOptions:
    """The options, or the defaults, overridden by the keywords of a call.

    Raises:
        TypeError: a keyword that is not an option.
        UserError: as in `SamplingOptions`.
    """
    options = replace(options or SamplingOptions(), **keywords)
    return options if batch_size is None else replace(options, batch_size=batch_size)
