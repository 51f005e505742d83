"""Functions that make the scheduler of each solver with correct settings for this package; see `solver_registry`."""

from collections.abc import Mapping
from typing import Any

from diffusers.schedulers.scheduling_utils import SchedulerMixin

from sddpm.diffusion.analytic import AnalyticDPMScheduler
from sddpm.diffusion.respaced import (
    RespacedDDIMScheduler,
    RespacedDDPMScheduler,
    RespacedDPMSolverScheduler,
    RespacedPNDMScheduler,
    RespacedUniPCScheduler,
)


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
    """Analytic-DPM (Bao et al., 2022): DDPM's steps with the optimal variance, computed from the model's moments.
    Stochastic."""
    return AnalyticDPMScheduler(clip_sample=clip_sample, clip_noise=_clip_noise(clip_sample, schedule), **schedule)


def analytic_ddim(clip_sample: bool, **schedule: Any) -> SchedulerMixin:
    """Analytic-DPM with DDIM's mean: noise only for the model's posterior variance. Stochastic."""
    return AnalyticDPMScheduler(
        form="ddim", clip_sample=clip_sample, clip_noise=1.0 if clip_sample else None, **schedule
    )


def analytic_dpm_ot(clip_sample: bool, **schedule: Any) -> SchedulerMixin:
    """Analytic-DPM on the trajectory of least KL divergence: good for likelihood rather than FID. Stochastic."""
    clip_noise = _clip_noise(clip_sample, schedule)
    return AnalyticDPMScheduler(trajectory="optimal", clip_sample=clip_sample, clip_noise=clip_noise, **schedule)


def _clip_noise(clip_sample: bool, schedule: Mapping[str, Any]) -> float | None:
    """Grey levels for DDPM's form, as in the paper's code."""
    return (2.0 if schedule["beta_schedule"] == "linear" else 1.0) if clip_sample else None
