"""From noise to images: the sampling loop of a model and a scheduler, as a plain generator without side effects."""

import copy
import inspect
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Self, Unpack
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from sddpm.diffusion.noise import clip_noise
from sddpm.diffusion.objectives import check_prediction_type, predict_x0, scale_x0
from sddpm.diffusion.solver_registry import deterministic_solvers
from sddpm.diffusion.solvers import adds_noise, clips_sample
from sddpm.diffusion.timesteps import chosen_timesteps, described, is_distilled, kept_timesteps, takes_timesteps
from sddpm.errors import UserError
from sddpm.models.thresholds import Thresholds
from sddpm.pipelines.class_guidance import ClassGuidance
from sddpm.pipelines.options import (
    DEFAULT_STEPS,
    SamplingKeywords,
    SamplingOptions,
    ThresholdSchedule,
    with_keywords,
)

_LOCK = threading.Lock()  # protects the table
_LOCKS: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()


@dataclass(frozen=True)
class DenoisingStep:
    """One evaluation of the network and the resulting solver step. Tensors are [B, C, H, W], nominally in [-1, 1].

    index: 0 for the first evaluation.
    t: diffusion step at which the network was evaluated, N - 1 (noise) to 0.
    x_t: the input.
    x0: the clean image implied by the prediction, scaled, and clamped if the scheduler clamps.
    x_prev: the input of the next step; after the last step, the images.
    snn_steps: SNN time steps used by each sample, LongTensor [B], with early exit; else None. [2 B] if the model was
        evaluated both with and without a class.
    """

    index: int
    t: int
    x_t: Tensor
    x0: Tensor
    x_prev: Tensor
    snn_steps: Tensor | None = None


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients inside the block; afterwards every module is in its previous mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _lock_of(model: nn.Module) -> AbstractContextManager[Any]:
    """The lock of the network whose thresholds a call sets; the compiled form shares the network's neurons."""
    while isinstance(inner := getattr(model, "unet", None), nn.Module):
        model = inner
    with _LOCK:
        return _LOCKS.setdefault(model, threading.RLock())


def _at_threshold(model: nn.Module, thresholds: Thresholds | None) -> AbstractContextManager[None]:
    if thresholds is None:
        return nullcontext()
    if not hasattr(model, "at_threshold"):
        raise UserError(f"v_threshold was given, but {type(model).__name__} has no spiking neurons")
    return model.at_threshold(thresholds)  # pyright: ignore[reportCallIssue]


def predict(
    model: nn.Module,
    x: Tensor,
    t: int | Tensor,
    thresholds: Thresholds | None = None,
    guidance: ClassGuidance | None = None,
) -> Tensor:
    """The model's prediction at x_t [B, ...] in the precision of `x`; the model is not changed. Threads that evaluate
    the same model wait for each other, so that each uses its own thresholds.

    Args:
        model: called as model(x_t, t).sample, in any precision; with guidance, model(x_t, t, class_labels).sample.
        x: x_t.
        t: diffusion step, or LongTensor [B].
        thresholds: firing thresholds for the evaluation; None for the model's own.
        guidance: classes for the evaluation; None for no classes.

    Raises:
        UserError: thresholds of layers that the model does not have.
    """
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), x.dtype)
    with _lock_of(model), evaluation_mode(model), _at_threshold(model, thresholds):
        predicted = model(x.to(dtype), t).sample if guidance is None else guidance.predict(model, x.to(dtype), t)
        return predicted.to(x.dtype)


def prepare_scheduler(scheduler: Any, options: SamplingOptions) -> tuple[Any, dict[str, Any]]:
    """A copy of the scheduler, set to the steps or time steps of the options, and the keyword arguments for its `step`
    besides generators.

    Raises:
        UserError: steps, time steps, an eta or a noise_clip that the scheduler or a distilled model does not support,
            or a scheduler that does not start from unit noise on an alphas_cumprod table.
    """
    if not hasattr(scheduler, "alphas_cumprod") or float(scheduler.init_noise_sigma) != 1.0:
        raise UserError(f"{type(scheduler).__name__} does not start from unit noise: choose one of sddpm's solvers")
    check_prediction_type(scheduler.config.prediction_type)
    total, steps = scheduler.config.num_train_timesteps, options.num_inference_steps
    kept = kept_timesteps(scheduler.config)
    timesteps = chosen_timesteps(steps, options.timesteps, scheduler.config)
    steps = DEFAULT_STEPS if steps is None else steps
    if timesteps is not None and not takes_timesteps(type(scheduler)):
        raise UserError(f"{type(scheduler).__name__} does not support `timesteps`: give `num_inference_steps`")
    if timesteps is None and not 1 <= steps <= total:
        raise UserError(f"steps must be from 1 to {total} (the model's noise schedule), not {steps}")
    takes_eta = "eta" in inspect.signature(scheduler.step).parameters
    if options.eta > 0 and not takes_eta:
        raise UserError(f"eta needs the solver ddim: {type(scheduler).__name__} has none")
    if options.eta > 0 and kept is not None and is_distilled(scheduler.config):
        raise UserError(f"{described(kept)}, without fresh noise: leave out eta, or give 0, not {options.eta:g}")
    if options.noise_clip not in (None, math.inf) and adds_noise(scheduler, options.eta):
        raise UserError(f"noise_clip needs a solver that adds no noise: {deterministic_solvers()}; inf limits nothing")
    scheduler = copy.deepcopy(scheduler)  # its counters are for one call
    if timesteps is None:
        scheduler.set_timesteps(steps)
    else:
        scheduler.set_timesteps(timesteps=timesteps)
    return scheduler, {"eta": options.eta} if takes_eta else {}


@dataclass(frozen=True)
class Denoiser:
    """A model and a scheduler with its steps set. Computes single denoising steps.

    Attributes:
        model, scheduler, guidance: as in `denoise`.
        step_options: keyword arguments of `scheduler.step`.
        v_threshold, x0_scale: as in `SamplingOptions`.
    """

    model: nn.Module
    scheduler: Any
    step_options: Mapping[str, Any]
    v_threshold: ThresholdSchedule = None
    x0_scale: float = 1.0
    guidance: ClassGuidance | None = None

    @classmethod
    def prepare(
        cls,
        model: nn.Module,
        scheduler: Any,
        generators: Sequence[torch.Generator],
        options: SamplingOptions,
        guidance: ClassGuidance | None,
    ) -> Self:
        """Make it from the arguments of `denoise`. Raises `UserError` as `denoise` does when called."""
        scheduler, step_options = prepare_scheduler(scheduler, options)
        if "generator" in inspect.signature(scheduler.step).parameters:
            step_options["generator"] = list(generators)
        x0_scale = 1.0 if options.x0_scale is None else options.x0_scale
        return cls(model, scheduler, step_options, options.v_threshold, x0_scale, guidance)

    def step(self, index: int, t: int, x: Tensor) -> DenoisingStep:
        """One evaluation at x_t [B, ...] and one solver step; the thresholds are those for `index` and `t`.
        Raises `UserError` as `predict` does."""
        scheduler, thresholds = self.scheduler, self.v_threshold
        kind, alphas_cumprod = scheduler.config.prediction_type, scheduler.alphas_cumprod
        if callable(thresholds):
            thresholds = thresholds(index, t)
        predicted = predict(self.model, x, t, thresholds, self.guidance)
        predicted = scale_x0(kind, alphas_cumprod, predicted, x, t, self.x0_scale)
        x0 = predict_x0(kind, alphas_cumprod, predicted, x, t)
        x0 = x0.clamp(-1.0, 1.0) if clips_sample(scheduler) else x0
        x_prev = scheduler.step(predicted, t, x, **self.step_options).prev_sample
        return DenoisingStep(index, t, x, x0, x_prev, getattr(self.model, "snn_steps", None))


def denoise(
    model: nn.Module,
    scheduler: Any,
    x_T: Tensor,
    generators: Sequence[torch.Generator],
    options: SamplingOptions | None = None,
    *,
    guidance: ClassGuidance | None = None,
    on_step_end: Callable[[int, int, Tensor], Tensor] | None = None,
    **keywords: Unpack[SamplingKeywords],
) -> Iterator[DenoisingStep]:
    """Sample from a diffusion model, one step at a time.

    The scheduler and the model's mode and thresholds are restored, even if the loop ends early.

    Args:
        model: predicts model(x_t, t).sample; on the device of `x_T`, in any precision.
        scheduler: a diffusers scheduler for unit noise with an alphas_cumprod table (DDPM, DDIM, DPM-Solver++, UniPC,
            PNDM).
        x_T: noise [B, C, H, W]; its precision is that of the solver. For a model of synaptic currents it is the current
            at every SNN time step; the solver then works on these currents, and their means are yielded.
        generators: one for each sample, for the noise of stochastic solvers.
        options: uses num_inference_steps, timesteps, eta, v_threshold, x0_scale and noise_clip; the others are already
            applied in `model` and `scheduler`.
        guidance: classes for the evaluations; None for no classes.
        on_step_end: called with index, t and x_prev after every step; returns the x_prev for the next step, in the form
            of x_T: for a model of synaptic currents, the currents [T, B, C, H, W].
        keywords: fields of `SamplingOptions`, which override those of `options`.

    Raises:
        UserError: at the call, for invalid options or an invalid scheduler; during sampling, for invalid thresholds.
    """
    options = with_keywords(options, keywords)
    if len(generators) != len(x_T):
        raise UserError(f"{len(x_T)} samples need as many generators, not {len(generators)}")
    x_T = clip_noise(x_T, options.noise_clip)
    config: Any = getattr(model, "config", {})
    T = config["T"] if config.get("synaptic_currents") else None
    if T is not None:
        if adds_noise(scheduler, options.eta):
            raise UserError(f"synaptic currents need a solver that adds no noise: {deterministic_solvers()}")
        x_T = x_T.expand(T, *x_T.shape)
    steps = _denoise(Denoiser.prepare(model, scheduler, generators, options, guidance), x_T, on_step_end)
    return steps if T is None else map(_decoded, steps)


def _decoded(step: DenoisingStep) -> DenoisingStep:
    """A step of synaptic currents [T, B, ...] as images: the means over T."""
    return replace(step, x_t=step.x_t.mean(0), x0=step.x0.mean(0), x_prev=step.x_prev.mean(0))


def _denoise(
    denoiser: Denoiser, x: Tensor, on_step_end: Callable[[int, int, Tensor], Tensor] | None
) -> Iterator[DenoisingStep]:
    for index, t in enumerate(denoiser.scheduler.timesteps.tolist()):
        step = denoiser.step(index, t, x)
        if on_step_end is not None:
            step = replace(step, x_prev=on_step_end(index, t, step.x_prev))
        yield step
        x = step.x_prev
