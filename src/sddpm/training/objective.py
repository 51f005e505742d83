"""The loss of a batch: squared error of the prediction at x_t, weighted by min-SNR if asked."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sddpm.data import to_model
from sddpm.diffusion.objectives import min_snr_weight, target
from sddpm.diffusion.schedule import NoiseSchedule, add_noise
from sddpm.training.batches import Batch
from sddpm.training.config import DiffusionConfig


def noise_schedule(config: DiffusionConfig) -> NoiseSchedule:
    """The forward process of a run. Raises `UserError` for betas that cannot be."""
    return NoiseSchedule(config.num_train_timesteps, config.beta_schedule, config.beta_start, config.beta_end)


def make_loss(
    config: DiffusionConfig, device: torch.device, dtype: torch.dtype, memory_format: torch.memory_format
) -> Callable[[nn.Module, Batch], Tensor]:
    """A function (model, batch) -> mean loss [] on `device`.

    The tables stay on the CPU, where t is drawn: exact in float64 (which mps lacks), and nothing waits for a GPU.
    """
    alphas_cumprod = noise_schedule(config).alphas_cumprod

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        images = batch.images.to(device, non_blocking=True)
        x0 = to_model(images, dtype).contiguous(memory_format=memory_format)
        noise = batch.noise.to(device, non_blocking=True).to(dtype)
        x_t = add_noise(alphas_cumprod, x0, noise, batch.t)
        (prediction,) = model(x_t, batch.t.to(device, non_blocking=True), return_dict=False)
        error = prediction - target(config.prediction_type, alphas_cumprod, x0, noise, batch.t)
        per_image = error.square().flatten(1).mean(1)
        if config.min_snr_gamma is not None:
            weight = min_snr_weight(config.prediction_type, alphas_cumprod, batch.t, config.min_snr_gamma)
            per_image = per_image * weight.to(dtype).to(device, non_blocking=True)
        return per_image.mean()

    return loss
