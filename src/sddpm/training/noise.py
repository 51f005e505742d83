"""The noise of a run: its forward process, and the noise levels of each training step."""

from collections.abc import Callable

import torch
from torch import Tensor

from sddpm.diffusion.distillation import grid_timesteps
from sddpm.diffusion.schedule import NoiseSchedule
from sddpm.training.config import Config, DiffusionConfig, DistillConfig
from sddpm.training.randomness import generator


def noise_schedule(config: DiffusionConfig) -> NoiseSchedule:
    """The forward process of a run. Raises `UserError` for invalid betas, or an invalid density of noise levels."""
    schedule = NoiseSchedule(config.num_train_timesteps, config.beta_schedule, config.beta_start, config.beta_end)
    schedule.density(config.density, config.density_mean, config.density_width)  # for its checks
    return schedule


def walk_timesteps(diffusion: DiffusionConfig, distill: DistillConfig) -> Tensor:
    """The time steps at which the teacher is evaluated for each of the student's, LongTensor [evaluations, substeps];
    the first of each row is the student's own. Raises `UserError` if they coincide."""
    count = distill.evaluations * distill.substeps
    found = grid_timesteps(distill.grid, count, noise_schedule(diffusion).alphas_cumprod)
    return torch.tensor(found).view(distill.evaluations, distill.substeps)


def timestep_sampler(config: Config) -> Callable[[int], Tensor]:
    """A function of an optimiser step that draws the time steps of its global batch, LongTensor [batch_size], from seed
    and step only; for distillation, from the student's time steps. Raises `UserError` as `noise_schedule` does."""
    schedule, about, train = noise_schedule(config.diffusion), config.diffusion, config.train
    own = None if config.distill is None else walk_timesteps(about, config.distill)[:, 0]

    def draw(step: int) -> Tensor:
        chance = generator(train.seed, "t", step)
        if own is not None:
            return own[torch.randint(len(own), (train.batch_size,), generator=chance)]
        return schedule.draw_timesteps(train.batch_size, chance, about.density, about.density_mean, about.density_width)

    return draw
