"""Sampling solvers by name, each built so that it is correct for the models of this package.

Order: how the error of the deterministic ones falls with the number of steps n, as n^-order, between two fixed noise
levels. The last stride, to the clean image, is of first order in all of them.
"""

from collections.abc import Callable, Mapping
from typing import Any

from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from sddpm.choices import check_choice
from sddpm.diffusion.analytic import AnalyticDPMScheduler
from sddpm.diffusion.objectives import check_prediction_type
from sddpm.diffusion.respaced import (
    RespacedDDIMScheduler,
    RespacedDDPMScheduler,
    RespacedDPMSolverScheduler,
    RespacedPNDMScheduler,
    RespacedUniPCScheduler,
)
from sddpm.diffusion.schedule import DIFFUSERS_NAMES, OUR_NAMES, NoiseSchedule
from sddpm.errors import UserError


def ddpm(clip_sample: bool, **schedule: Any) -> SchedulerMixin:
    """Ancestral sampling as in SDDPM (Ho et al., 2020): variance beta ("fixed large"), x_0 clamped. Stochastic."""
    return RespacedDDPMScheduler(
        variance_type="fixed_large", clip_sample=clip_sample, timestep_spacing="trailing", **schedule
    )


def ddim(clip_sample: bool, **schedule: Any) -> SchedulerMixin:
    """DDIM (Song et al., 2021): eta = 0 deterministic, eta = 1 ancestral. Order 1."""
    return RespacedDDIMScheduler(
        clip_sample=clip_sample, set_alpha_to_one=True, timestep_spacing="trailing", **schedule
    )


def dpm_solver_pp(clip_sample: bool, *, stochastic: bool = False, **schedule: Any) -> SchedulerMixin:
    """DPM-Solver++(2M) (Lu et al., 2022), multistep on the predicted x_0. Order 2."""
    return RespacedDPMSolverScheduler(
        algorithm_type="sde-dpmsolver++" if stochastic else "dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        final_sigmas_type="zero",
        thresholding=clip_sample,
        sample_max_value=1.0,
        timestep_spacing="trailing",
        **schedule,
    )


def sde_dpm_solver_pp(clip_sample: bool, **schedule: Any) -> SchedulerMixin:
    """SDE-DPM-Solver++(2M) (Lu et al., 2022, section 5): the same for ancestral sampling. Stochastic."""
    return dpm_solver_pp(clip_sample, stochastic=True, **schedule)


def unipc(clip_sample: bool, **schedule: Any) -> SchedulerMixin:
    """UniPC-2, B2(h) (Zhao et al., 2023): a predictor of order 2 and a corrector that makes it order 3."""
    return RespacedUniPCScheduler(
        solver_order=2,
        solver_type="bh2",
        predict_x0=True,
        final_sigmas_type="zero",
        thresholding=clip_sample,
        sample_max_value=1.0,
        timestep_spacing="trailing",
        **schedule,
    )


def pndm(clip_sample: bool, **schedule: Any) -> SchedulerMixin:
    """PNDM's linear multistep (Liu et al., 2022), n + 1 evaluations for n steps. Order 2."""
    return RespacedPNDMScheduler(clip_sample=clip_sample, **schedule)


def analytic_dpm(clip_sample: bool, **schedule: Any) -> SchedulerMixin:
    """Analytic-DPM (Bao et al., 2022): DDPM's steps with the optimal variance, from the model's moments. Stochastic."""
    return AnalyticDPMScheduler(clip_sample=clip_sample, clip_noise=_clip_noise(clip_sample, schedule), **schedule)


def analytic_ddim(clip_sample: bool, **schedule: Any) -> SchedulerMixin:
    """Analytic-DPM with DDIM's mean: noise only for what the model leaves open. Stochastic."""
    return AnalyticDPMScheduler(
        form="ddim", clip_sample=clip_sample, clip_noise=1.0 if clip_sample else None, **schedule
    )


def analytic_dpm_ot(clip_sample: bool, **schedule: Any) -> SchedulerMixin:
    """Analytic-DPM on its optimal trajectory, of least KL divergence: for likelihood rather than FID. Stochastic."""
    clip_noise = _clip_noise(clip_sample, schedule)
    return AnalyticDPMScheduler(trajectory="optimal", clip_sample=clip_sample, clip_noise=clip_noise, **schedule)


def _clip_noise(clip_sample: bool, schedule: Mapping[str, Any]) -> float | None:
    """Grey levels for DDPM's form, as in the code of the paper."""
    return (2.0 if schedule["beta_schedule"] == "linear" else 1.0) if clip_sample else None


SOLVERS: Mapping[str, Callable[..., SchedulerMixin]] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "dpm++": dpm_solver_pp,
    "sde-dpm++": sde_dpm_solver_pp,
    "unipc": unipc,
    "pndm": pndm,
    "analytic-dpm": analytic_dpm,
    "analytic-ddim": analytic_ddim,
    "analytic-dpm-ot": analytic_dpm_ot,
}


def make_scheduler(
    solver: str,
    *,
    num_train_timesteps: int = 1000,
    beta_schedule: str = "linear",
    beta_start: float = 1e-4,
    beta_end: float = 0.02,
    prediction_type: str = "epsilon",
    clip_sample: bool = True,
    moments: Mapping[str, Any] | None = None,
) -> SchedulerMixin:
    """A diffusers scheduler that samples with `solver` from a model trained on the given noise schedule.

    Args:
        solver: a name of `SOLVERS`.
        num_train_timesteps, beta_schedule, beta_start, beta_end: as of `NoiseSchedule`.
        prediction_type: "epsilon" or "v_prediction".
        clip_sample: clamp the estimate of x_0 to [-1, 1] at every step.
        moments: `Moments.to_dict()` of the model, kept in the config of any scheduler; the analytic ones need them.

    Raises:
        UserError: an unknown name, or values that make no schedule.
    """
    check_choice("solver", solver, SOLVERS)
    check_prediction_type(prediction_type)
    NoiseSchedule(num_train_timesteps, beta_schedule, beta_start, beta_end)  # for its checks
    scheduler: Any = SOLVERS[solver](
        clip_sample,
        num_train_timesteps=num_train_timesteps,
        beta_schedule=DIFFUSERS_NAMES[beta_schedule],
        beta_start=beta_start,
        beta_end=beta_end,
        prediction_type=prediction_type,
    )
    if moments is not None:
        scheduler.register_to_config(moments=dict(moments))
    return scheduler


def solver_name(scheduler: SchedulerMixin) -> str | None:
    """The name in `SOLVERS` of the solver that a scheduler is; None if it is none of them."""
    for name in SOLVERS:
        try:
            ours = switch_solver(scheduler, name)
        except UserError:
            return None  # its noise schedule is none of ours
        if type(ours) is type(scheduler) and _settings(ours) == _settings(scheduler):
            return name
    return None


def _settings(scheduler: SchedulerMixin) -> dict[str, Any]:
    config: Any = scheduler.config  # pyright: ignore[reportAttributeAccessIssue]
    return {key: value for key, value in config.items() if not key.startswith("_")}


def clips_sample(scheduler: SchedulerMixin) -> bool:
    """Whether the scheduler clamps its estimate of x_0: each class of diffusers has its own name for that."""
    config: Any = scheduler.config  # pyright: ignore[reportAttributeAccessIssue]
    return bool(config.get("clip_sample", config.get("thresholding", False)))


def adds_noise(scheduler: SchedulerMixin, eta: float = 0.0) -> bool:
    """Whether the steps of a scheduler add fresh noise, so that the noise at the start alone decides nothing."""
    config: Any = scheduler.config  # pyright: ignore[reportAttributeAccessIssue]
    stochastic_solver = str(config.get("algorithm_type", "")).startswith("sde")
    return eta > 0 or stochastic_solver or isinstance(scheduler, DDPMScheduler | AnalyticDPMScheduler)


def is_multistep(scheduler: SchedulerMixin) -> bool:
    """Whether a step depends on those before it, and the time steps can only be walked in their order."""
    return not isinstance(scheduler, RespacedDDPMScheduler | RespacedDDIMScheduler | AnalyticDPMScheduler)


def switch_solver(scheduler: SchedulerMixin, solver: str) -> SchedulerMixin:
    """A scheduler of another solver for the model that `scheduler` belongs to: same noise schedule, prediction type
    and moments.

    (diffusers' own `from_config` between two schedulers silently changes the spacing and the clamping.)

    Raises:
        UserError: unknown solver, or a noise schedule that is neither linear nor cosine.
    """
    config: Any = scheduler.config  # pyright: ignore[reportAttributeAccessIssue]
    beta_schedule = config.get("beta_schedule")
    if (
        beta_schedule not in OUR_NAMES
        or config.get("trained_betas") is not None
        or config.get("rescale_betas_zero_snr")
    ):
        raise UserError(
            "the scheduler of this model has a noise schedule of its own, which no other solver can take over:"
            " leave out the solver (solver=None) to sample with the scheduler as it is"
        )
    return make_scheduler(
        solver,
        num_train_timesteps=config.num_train_timesteps,
        beta_schedule=OUR_NAMES[beta_schedule],
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        prediction_type=config.prediction_type,
        clip_sample=clips_sample(scheduler),
        moments=config.get("moments"),
    )
