"""Common to all pipelines: model and scheduler, what is stored with them, and the options of a call."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar, cast

from torch import nn

from sddpm.choices import check_choice
from sddpm.diffusion.objectives import check_x0_scale
from sddpm.diffusion.solvers import solver_name, switch_solver
from sddpm.diffusion.timesteps import check_count, chosen_timesteps, is_distilled, kept_timesteps, own_steps
from sddpm.errors import UserError
from sddpm.inference.engine import Engines
from sddpm.models.early_exit import EarlyExit
from sddpm.models.thresholds import resolve_thresholds, spiking_neurons
from sddpm.pipelines.denoise import prepare_scheduler
from sddpm.pipelines.options import DEFAULT_STEPS, SamplingOptions
from sddpm.pipelines.samplers import OWN, Sampler, read_samplers
from sddpm.pipelines.threshold_guidance import PlainThresholds, kept_thresholds

ABOUT = ("threshold_guidance", "class_names", "signal_range", "x0_scale", "num_inference_steps", "samplers", "sampler")
Options = TypeVar("Options", bound=SamplingOptions)


@dataclass(frozen=True)
class Prepared:
    """Checked and resolved options of a pipeline: everything that is the same for all batches of a call.

    Attributes:
        model: returns the form of the model that samples; the first call compiles it.
        scheduler: the scheduler of the solver.
        options: with the model's own values instead of None, and the engine resolved; the solver stays None for the
            pipeline's own.
        evaluations: network evaluations per batch.
    """

    model: Callable[[], nn.Module]
    scheduler: Any
    options: SamplingOptions
    evaluations: int


class SamplingPipeline:
    """A model and a scheduler, and what is stored with them. It does not need diffusers' pipelines, which take seconds
    to import.

    Attributes:
        unet, scheduler: as of `SpikingDiffusionPipeline`.
        config: a mapping with the values of `about`.
    """

    unet: Any
    scheduler: Any
    config: Any

    def _begin(self, about: Mapping[str, Any]) -> None:
        """Check what is stored, and prepare to sample. Raises `UserError` as `SpikingDiffusionPipeline` does."""
        check_fit(self.unet, self.scheduler, about["class_names"])
        kept_thresholds(about["threshold_guidance"])  # for its checks
        if about["x0_scale"] is not None:
            check_x0_scale(about["x0_scale"])
        if about["num_inference_steps"] is not None:
            check_own_steps(about["num_inference_steps"], self.scheduler)
        read_samplers(about["samplers"], about["sampler"], self.scheduler.config.num_train_timesteps)  # for its checks
        self._engines = Engines()
        self._interrupt = False  # a callback_on_step_end sets it to stop, as in diffusers

    @property
    def about(self) -> dict[str, Any]:
        """What is saved in addition to model and scheduler: the other arguments of the constructor."""
        return {name: self.config.get(name) for name in ABOUT}

    @property
    def solver(self) -> str:
        """The default solver: its name in `SOLVERS`, or the class of a scheduler that is not there."""
        return solver_name(self.scheduler) or type(self.scheduler).__name__

    @property
    def num_inference_steps(self) -> int:
        """The default number of solver steps: the number saved with the model, else 50, or all that there are."""
        noise = self.scheduler.config
        default = min(DEFAULT_STEPS, noise.num_train_timesteps)
        return self.config.get("num_inference_steps") or own_steps(noise) or default

    @property
    def timesteps(self) -> tuple[int, ...] | None:
        """The time steps saved with the model, in the config of its scheduler; None for even ones."""
        kept = kept_timesteps(self.scheduler.config)
        return None if kept is None else tuple(kept)

    @property
    def samplers(self) -> dict[str, Sampler]:
        """The named samplers saved with the model."""
        return read_samplers(self.config.get("samplers"), None, self.scheduler.config.num_train_timesteps)

    @property
    def default_sampler(self) -> str | None:
        """The name of the sampler that is used if no sampler, solver, steps or time steps are given; None for the
        model's own solver, steps and x0_scale."""
        name = self.config.get("sampler")
        return None if name == OWN else name

    @property
    def guided_thresholds(self) -> PlainThresholds | None:
        """The default firing thresholds for sampling, as saved with the model; None: the trained ones."""
        return kept_thresholds(self.config.get("threshold_guidance"))

    @property
    def x0_scale(self) -> float:
        """The default factor of the predicted clean image."""
        return self.config.get("x0_scale") or 1.0

    @property
    def num_classes(self) -> int | None:
        """The number of image classes; None for an unconditional model."""
        return self.unet.config.get("num_classes")

    @property
    def class_names(self) -> list[str] | None:
        """The names of the classes, if they have any."""
        return self.config.get("class_names")

    @property
    def signal_range(self) -> tuple[float, float] | None:
        """The data values of -1 and 1 for a model of signals; None for a model of images."""
        if self.unet.config.get("dims", 2) == 2:
            return None
        low, high = self.config.get("signal_range") or (-1.0, 1.0)
        return low, high

    def require_images(self) -> None:
        """Raise `UserError` for a model of signals."""
        if self.signal_range is not None:
            raise UserError("this model samples one-dimensional signals; a model of images is needed")

    def resolve_engine(self, engine: str, exit_tolerance: float | None = None) -> str:
        """Resolve `engine` for this model: "eager", "exact" or "fast". Raises `UserError`, as a call would."""
        if exit_tolerance is not None:
            EarlyExit(self.unet, exit_tolerance)  # for its checks
            if engine not in ("auto", "eager"):
                raise UserError(f"early exit needs engine 'eager' or 'auto', not {engine!r}")
            return "eager"
        return self._engines.resolve(self.unet, engine)

    def model_for(self, engine: str) -> nn.Module:
        """The form of the model for `engine`, compiled if needed. Raises `UserError`, as a call would."""
        return self._engines.choose(self.unet, engine)

    def resolve_options(self, options: Options) -> Options:
        """The options with the model's own number of steps, thresholds and x0_scale instead of None, without an
        infinite noise_clip, and with the engine resolved. The solver stays None for the pipeline's own. Raises
        `UserError`, as a call would."""
        return cast(Options, self._prepare(options).options)

    def scheduler_of(self, options: SamplingOptions) -> Any:
        """The scheduler of resolved options: the pipeline's own if no solver is given, else that of the solver, for the
        same noise schedule. Raises `UserError` as `switch_solver` does."""
        return self.scheduler if options.solver is None else switch_solver(self.scheduler, options.solver)

    def evaluations_of(self, options: SamplingOptions) -> int:
        """Network evaluations per batch, from options with steps or time steps. Raises `UserError`, as a call would."""
        return len(prepare_scheduler(self.scheduler_of(options), options)[0].timesteps)

    def sampler_of(self, options: SamplingOptions) -> str | None:
        """The name of the saved sampler that these options use, by name or by default; None for the model's own values.
        Raises `UserError` for an unknown name."""
        aside = options.solver or options.num_inference_steps is not None or options.timesteps is not None
        name = options.sampler or (None if aside else self.default_sampler)
        if name in (None, OWN):
            return None
        check_choice("sampler", name, [*self.samplers, OWN])
        return name

    def sampler(self, options: SamplingOptions) -> str:
        """Solver and number of steps in words: "ddim with 50 steps"."""
        options = self._with_sampler(options)
        steps = options.num_inference_steps
        timesteps = chosen_timesteps(steps, options.timesteps, self.scheduler.config)
        if timesteps is not None:
            return f"{options.solver or self.solver} at {len(timesteps)} time steps, {', '.join(map(str, timesteps))}"
        return f"{options.solver or self.solver} with {steps or self.num_inference_steps} steps"

    def _with_sampler(self, options: Options) -> Options:
        """The options, completed from the sampler that they name or the default one. Raises `UserError` for an unknown
        sampler."""
        name = self.sampler_of(options)
        kept = {} if name is None else self.samplers[name].options()
        if options.num_inference_steps is not None or options.timesteps is not None:
            kept = {key: value for key, value in kept.items() if key not in ("num_inference_steps", "timesteps")}
        return replace(options.filled(**kept), sampler=None)

    def _prepare(self, options: SamplingOptions) -> Prepared:
        """Check and resolve the options. Raises `UserError` if this model cannot be sampled with them."""
        options = self._with_sampler(options)
        steps = options.num_inference_steps
        timesteps = chosen_timesteps(steps, options.timesteps, self.scheduler.config)
        if steps is None:
            steps = self.num_inference_steps if timesteps is None else len(timesteps)
        options = options.filled(
            num_inference_steps=steps,
            timesteps=None if timesteps is None else tuple(timesteps),
            v_threshold=self.guided_thresholds,
            x0_scale=self.x0_scale,
        )
        present = {name: neuron.v_threshold for name, neuron in spiking_neurons(self.unet).items()}
        if present and options.v_threshold is not None and not callable(options.v_threshold):
            resolve_thresholds(present, options.v_threshold)  # for its checks
        wanted = options.engine  # "auto" is resolved for each batch: the model may get a hook in between
        options = replace(
            options,
            engine=self.resolve_engine(options.engine, options.exit_tolerance),
            noise_clip=None if options.noise_clip == math.inf else options.noise_clip,
        )
        scheduler = self.scheduler_of(options)
        evaluations = len(prepare_scheduler(scheduler, options)[0].timesteps)
        if options.exit_tolerance is None:
            model = partial(self._engines.choose, self.unet, wanted)
        else:
            model = partial(EarlyExit, self.unet, options.exit_tolerance)
        return Prepared(model, scheduler, options, evaluations)


def check_fit(unet: Any, scheduler: Any, class_names: Sequence[str] | None) -> None:
    """Raise `UserError` for another number of time steps in the network than in the scheduler, or for more names than
    classes. (The last classes need no names: a network may have more classes than its data.)"""
    rows, steps = unet.config.get("num_train_timesteps"), scheduler.config.num_train_timesteps
    if rows not in (None, steps):
        raise UserError(f"the network has {rows} time steps, but its scheduler {steps}: both need the same number")
    named, classes = len(class_names or ()), unet.config.get("num_classes") or 0
    if named > classes:
        raise UserError(f"{named} class_names, but the network has {classes} classes: give one name for each class")


def check_own_steps(num_inference_steps: Any, scheduler: Any) -> None:
    """Raise `UserError` for a number of steps that is invalid for a model with that scheduler."""
    if is_distilled(scheduler.config) and num_inference_steps != (known := own_steps(scheduler.config)):
        raise UserError(f"num_inference_steps must be {known}, for which it was distilled, not {num_inference_steps!r}")
    total = scheduler.config.num_train_timesteps
    if type(num_inference_steps) is not int or not 1 <= num_inference_steps <= total:
        raise UserError(
            f"num_inference_steps must be a whole number from 1 to {total} (the model's noise schedule), "
            f"not {num_inference_steps!r}"
        )
    if (kept := kept_timesteps(scheduler.config)) is not None:
        check_count(num_inference_steps, kept)
