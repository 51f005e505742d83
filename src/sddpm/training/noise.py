"""The noise of a run: its forward process, and the noise levels that a step learns from."""

from collections.abc import Callable

from torch import Tensor

from sddpm.diffusion.schedule import NoiseSchedule
from sddpm.training.config import Config, DiffusionConfig
from sddpm.training.randomness import generator


def noise_schedule(config: DiffusionConfig) -> NoiseSchedule:
    """The forward process of a run. Raises `UserError` for invalid betas, or an invalid density of noise levels."""
    schedule = NoiseSchedule(config.num_train_timesteps, config.beta_schedule, config.beta_start, config.beta_end)
    schedule.density(config.density, config.density_mean, config.density_width)  # for its checks
    return schedule


def timestep_sampler(config: Config) -> Callable[[int], Tensor]:
    """A function of an optimiser step that draws the time steps of its global batch, LongTensor [batch_size], by seed
    and step alone. Raises `UserError` as `noise_schedule`."""
    schedule, about, train = noise_schedule(config.diffusion), config.diffusion, config.train

    def draw(step: int) -> Tensor:
        chance = generator(train.seed, "t", step)
        return schedule.draw_timesteps(train.batch_size, chance, about.density, about.density_mean, about.density_width)

    return draw
