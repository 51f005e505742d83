"""RePaint (Lugmayr et al., CVPR 2022): how to walk between noise and image when a part of the image is known.

Levels: 0 is noise, n the clean image; each level in between is where one step of the solver ends.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sddpm.diffusion.noise import draw_noise
from sddpm.errors import UserError


def resampling_walk(steps: int, jump_length: int, resamplings: int) -> list[int]:
    """The levels one after another: stretches of `jump_length` steps, each walked `resamplings` times.

    To one level further is a step of the solver (`steps` x `resamplings` in all); back to the beginning of a stretch is
    noise added at a stroke. One resampling is the plain way down.

    Raises:
        UserError: a stretch or a number of resamplings below 1.
    """
    if jump_length < 1 or resamplings < 1:
        raise UserError(f"jump length and resamplings must be at least 1, not {jump_length} and {resamplings}")
    levels = [0]
    for start in range(0, steps, jump_length):
        end = min(start + jump_length, steps)
        for walk in range(resamplings):
            levels += ([start] if walk > 0 else []) + list(range(start + 1, end + 1))
    return levels


def add_more_noise(x: Tensor, before: float, after: float, generators: Sequence[torch.Generator]) -> Tensor:
    """x [B, ...] at the noise level alphas_cumprod = `before`, taken on to the noisier level `after` (q(x_t | x_s))."""
    noise = draw_noise(generators, x.shape[1:], x.dtype, x.device)
    kept = after / before
    return kept**0.5 * x + (1 - kept) ** 0.5 * noise


def with_known(
    x: Tensor, known: Tensor, unknown: Tensor, alpha: float, generators: Sequence[torch.Generator]
) -> Tensor:
    """x where `unknown`, elsewhere the known image at the noise level alphas_cumprod = `alpha`; itself at 1."""
    if alpha == 1.0:
        return torch.where(unknown, x, known)
    return torch.where(unknown, x, add_more_noise(known, 1.0, alpha, generators))
