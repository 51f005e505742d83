"""The forward process of DDPM (Ho et al., 2020), q(x_t | x_0) = N(sqrt(a_t) x_0, (1 - a_t) I) with a = alphas_cumprod.

Index convention: t = 0 means one noising step, t = num_train_timesteps - 1 (almost) pure noise.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from sddpm.choices import check_choice
from sddpm.diffusion.density import find_density
from sddpm.errors import UserError

BETA_SCHEDULES = ("linear", "cosine")
DIFFUSERS_NAMES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
OUR_NAMES = {theirs: ours for ours, theirs in DIFFUSERS_NAMES.items()}


@dataclass(frozen=True)
class NoiseSchedule:
    """Float64 tables of a noise schedule, computed once, on the CPU.

    Args:
        num_train_timesteps: number of noising steps N.
        beta_schedule: "linear" (Ho et al., 2020) or "cosine" (Nichol & Dhariwal, 2021, eq. 17; diffusers calls it
            squaredcos_cap_v2). The cosine schedule ignores `beta_start` and `beta_end`.
        beta_start: variance of the first noising step.
        beta_end: variance of the last noising step.

    Raises:
        UserError: an unknown schedule, no steps, or betas that are not 0 < beta_start <= beta_end < 1.
    """

    num_train_timesteps: int = 1000
    beta_schedule: str = "linear"
    beta_start: float = 1e-4
    beta_end: float = 0.02

    def __post_init__(self) -> None:
        check_choice("beta_schedule", self.beta_schedule, BETA_SCHEDULES)
        if self.num_train_timesteps < 1:
            raise UserError(f"num_train_timesteps must be at least 1, not {self.num_train_timesteps}")
        if not 0.0 < self.beta_start <= self.beta_end < 1.0:
            raise UserError(f"betas must be 0 < beta_start <= beta_end < 1, not {self.beta_start} and {self.beta_end}")

    @cached_property
    def betas(self) -> Tensor:
        """Variance added by each noising step, float64 [N]."""
        steps = self.num_train_timesteps
        if self.beta_schedule == "linear":
            return torch.linspace(self.beta_start, self.beta_end, steps, dtype=torch.float64)
        alpha_bar = [math.cos((i / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(steps + 1)]
        betas = [min(1 - after / before, 0.999) for before, after in pairwise(alpha_bar)]
        return torch.tensor(betas, dtype=torch.float64)

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """Fraction of the signal's variance that remains after step t: product of 1 - beta up to and including t,
        float64 [N]."""
        return torch.cumprod(1.0 - self.betas, dim=0)

    def density(self, name: str = "uniform", mean: float | None = None, width: float | None = None) -> Tensor:
        """The training density of the noise levels: a probability for each time step, float64 [N].

        Args:
            name: one of `sddpm.diffusion.density.DENSITIES`.
            mean, width: parameters of the density; None for its defaults.

        Raises:
            UserError: an unknown name, or as in `Density.probabilities`.
        """
        return find_density(name).probabilities(self.alphas_cumprod, mean, width)

    def draw_timesteps(
        self,
        count: int,
        generator: torch.Generator,
        density: str = "uniform",
        mean: float | None = None,
        width: float | None = None,
    ) -> Tensor:
        """Time steps for training, LongTensor [count], drawn only from the generator; `density`, `mean`, `width` and
        errors as in `density`."""
        if density == "uniform" and mean is None and width is None:
            return torch.randint(self.num_train_timesteps, (count,), generator=generator)
        upto = self.density(density, mean, width).cumsum(0)
        drawn = torch.rand(count, generator=generator, dtype=torch.float64) * upto[-1]
        return torch.searchsorted(upto, drawn, right=True).clamp_(max=self.num_train_timesteps - 1)


def signal_and_noise_rates(alphas_cumprod: Tensor, t: Tensor | int, like: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(alphas_cumprod_t) and sqrt(1 - alphas_cumprod_t), shaped to multiply `like` [B, ...].

    Looked up in the table's precision and on its device (if `t` is there too, nothing waits for a GPU), then cast:
    in float32 the difference 1 - alphas_cumprod would lose its digits.

    Args:
        alphas_cumprod: table [N].
        t: one step for all samples, or LongTensor [B].
        like: tensor [B, ...] whose dtype, device and number of dimensions the results take.
    """
    t = torch.as_tensor(t, device=alphas_cumprod.device)
    kept = alphas_cumprod[t].reshape(-1, *[1] * (like.ndim - 1))
    rates = torch.stack([kept.sqrt(), (1.0 - kept).sqrt()]).to(like.dtype)
    signal_rate, noise_rate = rates.to(like.device, non_blocking=like.device.type != "mps").unbind()
    return signal_rate, noise_rate


def add_noise(alphas_cumprod: Tensor, x0: Tensor, noise: Tensor, t: Tensor | int) -> Tensor:
    """Sample q(x_t | x_0) (Ho et al., 2020, eq. 4).

    Args:
        alphas_cumprod: table [N], as `NoiseSchedule.alphas_cumprod`.
        x0: clean images [B, ...] in [-1, 1].
        noise: standard normal noise of the same shape.
        t: one step for all samples, or LongTensor [B], from 0 to N - 1.

    Returns:
        x_t, of the shape and dtype of `x0`.
    """
    signal_rate, noise_rate = signal_and_noise_rates(alphas_cumprod, t, x0)
    return signal_rate * x0 + noise_rate * noise
