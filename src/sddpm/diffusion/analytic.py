"""Analytic-DPM (Bao et al., ICLR 2022) as a diffusers scheduler: the variance of its steps is measured instead of
chosen.

`model_index.json` of a saved pipeline names this module: do not move it, and keep `SchedulerMixin` in its namespace.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_ddpm import DDPMSchedulerOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from sddpm.diffusion.moments import Moments
from sddpm.diffusion.noise import step_noise
from sddpm.diffusion.objectives import predict_x0
from sddpm.diffusion.reverse_variance import (
    ancestral_variance,
    cheapest_path,
    optimal_variance,
    posterior_variance,
    trajectory_costs,
)
from sddpm.diffusion.schedule import OUR_NAMES, NoiseSchedule
from sddpm.diffusion.timesteps import chosen_timesteps, even_trajectory, timesteps_for
from sddpm.errors import UserError

CHOICES = {"form": ("ddpm", "ddim"), "trajectory": ("even", "optimal")}


class KeptSettings:
    """Additional settings in the configs of all our schedulers: see `timesteps`; `moments` are for Analytic-DPM."""

    def __init__(self, moments=None, timesteps=None, distilled=False): ...


class AnalyticDPMScheduler(SchedulerMixin, ConfigMixin):
    """Reverse steps with the mean of DDPM or DDIM and the optimal variance for the given model.

    Args:
        num_train_timesteps, beta_start, beta_end, beta_schedule: the noise schedule, in diffusers' names.
        prediction_type: "epsilon" or "v_prediction".
        clip_sample: images are in [-1, 1]: clamp x_0, and its posterior variance to at most 1.
        form: "ddpm" or "ddim": which sets lambda of the forward process that is reversed.
        trajectory: "even", or "optimal": the time steps of least KL divergence (finite only for "ddpm"). The optimal
            trajectory has the best likelihood, for which the paper uses it; the paper's FIDs use even steps.
        clip_noise: upper limit, in grey levels of 255, on the mean noise added by the second-to-last step, which stays
            in the picture (the paper's code: 2 with DDPM and the linear schedule, else 1); None for no limit.
        moments: `Moments.to_dict()` of the model, which `sddpm moments MODEL` measures.

    Raises:
        UserError: unknown names, an invalid noise schedule; in `set_timesteps`, moments that are missing.
    """

    order = 1
    init_noise_sigma = 1.0

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        prediction_type: str = "epsilon",
        clip_sample: bool = True,
        form: str = "ddpm",
        trajectory: str = "even",
        clip_noise: float | None = 2.0,
        moments: Mapping[str, Any] | None = None,
    ):
        for key, choices in CHOICES.items():
            if self.config[key] not in choices:
                raise UserError(f"{key} must be {' or '.join(choices)}, not {self.config[key]!r}")
        if form == "ddim" and trajectory == "optimal":
            raise UserError("the optimal trajectory needs form ddpm: the KL divergence of ddim is infinite")
        schedule = NoiseSchedule(num_train_timesteps, OUR_NAMES.get(beta_schedule, beta_schedule), beta_start, beta_end)
        self.alphas_cumprod = schedule.alphas_cumprod
        self.timesteps = torch.arange(num_train_timesteps).flip(0)

    def scale_model_input(self, sample: Tensor, timestep: int | None = None) -> Tensor:
        """`sample` itself: the model receives x_t unscaled."""
        return sample

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device = "cpu",
        timesteps: Sequence[int] | None = None,
    ) -> None:
        """Choose a trajectory with this number of steps, or use the given time steps, and compute their variances.

        Raises:
            UserError: steps or time steps that are out of range, or moments that are missing or damaged.
        """
        total = self.config["num_train_timesteps"]
        chosen = timesteps_for(num_inference_steps, self.config, timesteps, even_trajectory)
        if self.config["moments"] is None:
            raise UserError("Analytic-DPM needs the moments of this model: run `sddpm moments MODEL` once")
        h = torch.tensor(Moments.from_dict(self.config["moments"], total).h, dtype=torch.float64)
        limit = 1.0 if self.config["clip_sample"] else float("inf")
        posterior = posterior_variance(self.alphas_cumprod, h, limit)

        free = chosen_timesteps(num_inference_steps, timesteps, self.config) is None
        if free and self.config["trajectory"] == "optimal":
            chosen = cheapest_path(trajectory_costs(self.alphas_cumprod, posterior), len(chosen))
        self.timesteps = torch.tensor(chosen, device=device)

        # For the strides between these time steps; the last one, to the clean image, adds no noise.
        a = self.alphas_cumprod[chosen]
        a_t, a_s = a[:-1], a[1:]
        ancestral = ancestral_variance(a_t, a_s)
        self._forward = ancestral if self.config["form"] == "ddpm" else torch.zeros_like(ancestral)
        self._variance = optimal_variance(a_t, a_s, posterior[chosen[:-1]], self._forward)
        if self.config["clip_noise"] is not None and len(self._variance):
            # E |N(0, sigma^2)| = sigma sqrt(2 / pi); a grey level is 2 / 255.
            sigma = self.config["clip_noise"] * 2 / 255 * (torch.pi / 2) ** 0.5
            self._variance[-1] = self._variance[-1].clamp(max=sigma**2)

    def step(
        self,
        model_output: Tensor,
        timestep: int,
        sample: Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> DDPMSchedulerOutput | tuple:
        """One reverse step; arguments and result as in diffusers. `timestep` is one of `self.timesteps`."""
        index = self.timesteps.tolist().index(int(timestep))
        alpha = self.alphas_cumprod[int(timestep)].item()

        # 1. clean image and noise from the prediction
        x0 = predict_x0(self.config["prediction_type"], self.alphas_cumprod, model_output, sample, int(timestep))
        if self.config["clip_sample"]:
            x0 = x0.clamp(-1.0, 1.0)
        if index == len(self.timesteps) - 1:
            return DDPMSchedulerOutput(x0, x0) if return_dict else (x0, x0)
        epsilon = (sample - alpha**0.5 * x0) / (1 - alpha) ** 0.5

        # 2. mean of the step, and fresh noise of the optimal variance
        alpha_prev = self.alphas_cumprod[self.timesteps[index + 1]].item()
        forward, variance = self._forward[index].item(), self._variance[index].item()
        noise = step_noise(sample, generator)
        mean = alpha_prev**0.5 * x0 + max(1 - alpha_prev - forward, 0.0) ** 0.5 * epsilon
        prev_sample = mean + variance**0.5 * noise
        return DDPMSchedulerOutput(prev_sample, x0) if return_dict else (prev_sample, x0)

    @classmethod
    def _get_compatibles(cls) -> list[type]:  # diffusers accepts their settings in a config without a warning
        return [*super()._get_compatibles(), KeptSettings]

    def __len__(self) -> int:
        return self.config["num_train_timesteps"]
