"""diffusers' schedulers with time steps that are correct at both ends for any number of steps.

n of N steps means: from pure noise, t = N - 1, in n strides as equal as whole numbers allow, to the clean image (not to
t = 0, which still contains noise). A stride always goes from a time step to the next in the table. diffusers instead
uses the stride N // n, which misses the next time step when n does not divide N, and its spacings stop short of one end
or the other.

Any other decreasing time steps can be given to `set_timesteps`, or stored in the config as `timesteps`. Stored ones are
used if no number of steps is given or if the number matches.

`model_index.json` of a saved pipeline names this module: do not move it, and keep `SchedulerMixin` in its namespace,
because diffusers looks there for how to load the classes.
"""

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_ddim import DDIMScheduler, DDIMSchedulerOutput
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin, SchedulerOutput  # noqa: F401  see above
from torch import Tensor

from sddpm.diffusion.analytic import AnalyticDPMScheduler, KeptSettings
from sddpm.diffusion.noise import step_noise
from sddpm.diffusion.objectives import predict_epsilon, predict_x0
from sddpm.diffusion.timesteps import respaced_timesteps, timesteps_for


def _alpha_pair(scheduler, index: int) -> tuple[float, float]:
    """alphas_cumprod at the time step with this index, and at the next one or for the clean image."""
    timesteps = scheduler.timesteps
    alpha_prev = float(scheduler.alphas_cumprod[timesteps[index + 1]]) if index + 1 < len(timesteps) else 1.0
    return float(scheduler.alphas_cumprod[timesteps[index]]), alpha_prev


def _sigmas(alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """Noise to signal sqrt((1 - a) / a) at each time step, and 0 for the clean image: float32 [n + 1] on the CPU."""
    kept = alphas_cumprod[timesteps.cpu()]
    return torch.cat([((1 - kept) / kept).sqrt(), torch.zeros(1)])


def _step_to(alpha_prev: float, x0: Tensor, epsilon: Tensor, sigma: float = 0.0) -> Tensor:
    """Mean of x at the noise level `alpha_prev` given x_0 and epsilon (Song et al., 2021, eq. 12)."""
    return alpha_prev**0.5 * x0 + max(1 - alpha_prev - sigma**2, 0.0) ** 0.5 * epsilon


def _adams_bashforth(slopes: list[Tensor], times: list[int] | None) -> Tensor:
    """Mean slope of the next stride, extrapolated from the last 1 to 4 slopes: for equal strides by Liu et al., 2022,
    eq. 12, else by the polynomial through the slopes at `times`, of which the last is the end of the stride."""
    weights = {
        1: (1.0,),
        2: (-1 / 2, 3 / 2),
        3: (5 / 12, -16 / 12, 23 / 12),
        4: (-9 / 24, 37 / 24, -59 / 24, 55 / 24),
    }[len(slopes)]
    if times is not None:  # sum of weights s^k = integral of s^k from 0 to 1, for k = 0, 1, ...
        s = (times[-2] - torch.tensor(times[:-1], dtype=torch.float64)) / (times[-2] - times[-1])
        k = torch.arange(len(slopes))
        weights = torch.linalg.solve(s ** k[:, None], 1 / (k + 1.0).double()).tolist()
    return torch.stack([weight * slope for weight, slope in zip(weights, slopes, strict=True)]).sum(0)


class _Respaced:
    """The common part of these schedulers: correct time steps, and a config that can store those of the model."""

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device = "cpu",
        timesteps: Sequence[int] | None = None,
    ) -> None:
        timesteps = timesteps_for(num_inference_steps, self.config, timesteps)  # type: ignore[attr-defined]
        super().set_timesteps(len(timesteps), device)  # type: ignore[misc]
        self.timesteps = torch.tensor(timesteps, device=device)

    @classmethod
    def _get_compatibles(cls) -> list[type]:  # diffusers accepts their settings in a config without a warning
        return [*super()._get_compatibles(), AnalyticDPMScheduler, KeptSettings]  # type: ignore[misc]


class RespacedDDPMScheduler(_Respaced, DDPMScheduler):
    """Ancestral sampling (Ho et al., 2020). Fewer steps use the posteriors of the respaced process (Nichol & Dhariwal,
    2021) with betas 1 - a_t / a_prev."""

    def _get_variance(self, t: int, predicted_variance=None, variance_type=None) -> Tensor:
        # The step to the clean image uses the posterior's variance, 0: beta would leave noise in the picture.
        last = self.previous_timestep(t) < 0
        return super()._get_variance(t, predicted_variance, "fixed_small" if last else variance_type)


class RespacedDDIMScheduler(_Respaced, DDIMScheduler):
    """DDIM (Song et al., 2021) whose epsilon is recomputed from the clamped x_0, so that the two agree."""

    def step(
        self,
        model_output: Tensor,
        timestep: int,
        sample: Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool = True,
        generator: torch.Generator | list[torch.Generator] | None = None,
        variance_noise: Tensor | None = None,
        return_dict: bool = True,
    ) -> DDIMSchedulerOutput | tuple:
        """One step of Song et al., eq. 12, with sigma of eq. 16; arguments and result as in diffusers.

        `use_clipped_model_output` is always on.
        """
        index = self.timesteps.tolist().index(int(timestep))
        alpha, alpha_prev = _alpha_pair(self, index)

        # 1. clean image and noise from the prediction
        x0 = predict_x0(self.config["prediction_type"], self.alphas_cumprod, model_output, sample, int(timestep))
        if self.config["clip_sample"]:
            x0 = x0.clamp(-self.config["clip_sample_range"], self.config["clip_sample_range"])
        epsilon = (sample - alpha**0.5 * x0) / (1 - alpha) ** 0.5

        # 2. mean of the step, and eta's share of fresh noise
        sigma = eta * ((1 - alpha_prev) / (1 - alpha) * (1 - alpha / alpha_prev)) ** 0.5
        prev_sample = _step_to(alpha_prev, x0, epsilon, sigma)
        if eta > 0:
            if variance_noise is None:
                variance_noise = step_noise(model_output, generator)
            prev_sample = prev_sample + sigma * variance_noise
        return DDIMSchedulerOutput(prev_sample, x0) if return_dict else (prev_sample, x0)


class _SigmaTable(_Respaced):
    """For schedulers with a table of sigmas: the correct table, ending at 0; `thresholding` clamps x_0."""

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device = "cpu",
        timesteps: Sequence[int] | None = None,
    ) -> None:
        super().set_timesteps(num_inference_steps, device, timesteps)
        self.sigmas = _sigmas(self.alphas_cumprod, self.timesteps)  # type: ignore[attr-defined]
        self.num_inference_steps = len(self.timesteps)

    def _threshold_sample(self, sample: Tensor) -> Tensor:
        # Same as diffusers for sample_max_value = 1, but without its quantile, which fails above 16 million values.
        return sample.clamp(-1.0, 1.0)


class RespacedDPMSolverScheduler(_SigmaTable, DPMSolverMultistepScheduler):
    """DPM-Solver++ and SDE-DPM-Solver++ (Lu et al., 2022), multistep; `thresholding` clamps x_0 to [-1, 1]."""


class RespacedUniPCScheduler(_SigmaTable, UniPCMultistepScheduler):
    """UniPC (Zhao et al., 2023), B2(h); `thresholding` clamps x_0 to [-1, 1]."""


class RespacedPNDMScheduler(_Respaced, PNDMScheduler):
    """PNDM (Liu et al., 2022) with only the linear multistep part ("PLMS").

    A first step of two evaluations (improved Euler) and Adams-Bashforth formulas of rising order replace the paper's
    twelve Runge-Kutta evaluations, so n steps cost n + 1 evaluations. The last stride, to the clean image, uses only
    the newest epsilon, as DPM-Solver++ does: the extrapolation multiplies independent prediction errors by up to 3.7,
    and no later stride would remove them from the picture. A v prediction is converted to epsilon before predictions
    are combined over time. `clip_sample`, which diffusers' PNDM lacks, clamps the x_0 of each stride: at the noisy end
    of the cosine schedule even the smallest difference in epsilon moves x_0 far out of range.
    """

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        prediction_type: str = "epsilon",
        clip_sample: bool = True,
    ):
        super().__init__(
            num_train_timesteps=num_train_timesteps,
            beta_start=beta_start,
            beta_end=beta_end,
            beta_schedule=beta_schedule,
            prediction_type=prediction_type,  # pyright: ignore[reportArgumentType]
            skip_prk_steps=True,
            set_alpha_to_one=True,
        )

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device = "cpu",
        timesteps: Sequence[int] | None = None,
    ) -> None:
        super().set_timesteps(num_inference_steps, device, timesteps)
        self._distinct = self.timesteps.tolist()
        self._even = self._distinct == respaced_timesteps(len(self._distinct), self.config["num_train_timesteps"])
        self.timesteps = torch.cat([self.timesteps[:2], self.timesteps[1:]])  # the second one is evaluated twice

    def step(
        self, model_output: Tensor, timestep: int, sample: Tensor, return_dict: bool = True
    ) -> SchedulerOutput | tuple:
        """One evaluation's step; arguments and result as in diffusers. `timestep` must follow the order of
        `self.timesteps`."""
        epsilon = predict_epsilon(
            self.config["prediction_type"], self.alphas_cumprod, model_output, sample, int(timestep)
        )
        index, self.counter = self.counter, self.counter + 1
        if index == 1:  # the second evaluation repeats the first stride with the mean slope
            index, sample, slope = 0, self.cur_sample, (epsilon + self.ets[-1]) / 2
        else:
            self.cur_sample, self.ets = sample, [*self.ets[-3:], epsilon]
            times = None if self._even else self._distinct[max(index - 4, 0) : max(index, 1) + 1]
            slope = epsilon if index == len(self.timesteps) - 1 else _adams_bashforth(self.ets, times)
        alpha, alpha_prev = _alpha_pair(self, index)
        x0 = (sample - (1 - alpha) ** 0.5 * slope) / alpha**0.5
        if self.config["clip_sample"]:
            x0 = x0.clamp(-1.0, 1.0)
            slope = (sample - alpha**0.5 * x0) / (1 - alpha) ** 0.5
        prev_sample = _step_to(alpha_prev, x0, slope)
        return SchedulerOutput(prev_sample) if return_dict else (prev_sample,)
