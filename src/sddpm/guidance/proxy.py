"""A cheap proxy for sample quality: how well the model predicts the noise at other thresholds."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sddpm.data import to_model
from sddpm.diffusion.noise import seeded_noise
from sddpm.diffusion.objectives import predict_epsilon
from sddpm.diffusion.schedule import add_noise
from sddpm.pipelines.denoise import predict
from sddpm.pipelines.threshold_guidance import PlainThresholds, StagedThresholds

BINS = 10
_BATCH = 64


@dataclass(frozen=True)
class NoisyImages:
    """Images and the noise levels at which the model is evaluated on them, the same for all thresholds.

    images: uint8 [N, C, H, W]. t: LongTensor [N, BINS], for each image one diffusion step in each tenth of the range.
    first_seed: first of the N * BINS seeds of the noise.
    """

    images: Tensor
    t: Tensor
    first_seed: int = 0

    @classmethod
    def of(cls, images: Tensor, num_train_timesteps: int) -> "NoisyImages":
        """Spread the steps evenly over each tenth, in an independent order for each tenth."""
        generator = torch.Generator().manual_seed(0)
        count = len(images)
        columns = []
        for low, high in bin_edges(num_train_timesteps):
            spread = low + (torch.arange(count) + 0.5) / count * (high - low)
            columns.append(spread.long()[torch.randperm(count, generator=generator)])
        return cls(images, torch.stack(columns, 1))


def bin_edges(num_train_timesteps: int) -> list[tuple[int, int]]:
    """The diffusion steps [from, to) of each tenth."""
    cuts = [round(i * num_train_timesteps / BINS) for i in range(BINS + 1)]
    return list(pairwise(cuts))


def noise_losses(pipeline: Any, noisy: NoisyImages, thresholds: PlainThresholds) -> Tensor:
    """Mean squared error of the predicted noise for each image and tenth of the diffusion steps, float64 [N, BINS].

    For a model that predicts v, the noise implied by v is used.
    """
    count = len(noisy.images)
    t = noisy.t.flatten()
    found = torch.empty(count * BINS, dtype=torch.float64)
    if isinstance(thresholds, StagedThresholds):
        early = t >= thresholds.boundary
        parts = [(early.nonzero()[:, 0], thresholds.early), ((~early).nonzero()[:, 0], thresholds.late)]
    else:
        parts = [(torch.arange(len(t)), thresholds)]
    for members, values in parts:
        for chosen in members.split(_BATCH) if len(members) else ():  # an empty tensor would be split in one part
            found[chosen] = _losses(pipeline, noisy, chosen, t[chosen], values)
    return found.reshape(count, BINS)


def _losses(pipeline: Any, noisy: NoisyImages, chosen: Tensor, t: Tensor, thresholds: Any) -> Tensor:
    """The losses [B] of the pairs of image and tenth with these numbers."""
    scheduler, device = pipeline.scheduler, pipeline.device
    table = scheduler.alphas_cumprod.cpu()
    x0 = to_model(noisy.images[chosen // BINS]).to(device)
    noise = seeded_noise([noisy.first_seed + int(i) for i in chosen], x0.shape[1:], device=device)
    x_t = add_noise(table, x0, noise, t)
    predicted = predict(pipeline.unet, x_t, t.to(device), thresholds)
    epsilon = predict_epsilon(scheduler.config.prediction_type, table, predicted, x_t, t)
    return (epsilon - noise).double().square().flatten(1).mean(1).cpu()
