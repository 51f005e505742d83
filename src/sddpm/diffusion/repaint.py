"""RePaint (Lugmayr et al., CVPR 2022): the order of steps between noise and image when a part of the image is known.

Levels: 0 is noise, n the clean image; each level in between is the end of one solver step.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sddpm.diffusion.noise import draw_noise
from sddpm.errors import UserError


def resampling_walk(steps: int, jump_length: int, resamplings: int) -> list[int]:
    """The sequence of levels: segments of `jump_length` steps, each run `resamplings` times.

    A move to the next level is a step of the solver (`steps` x `resamplings` in total); a move back to the beginning of
    a segment adds noise in one go. One resampling is the plain reverse process.

    Raises:
        UserError: a segment length or a number of resamplings that is not a whole number of at least 1.
    """
    if any(type(value) is not int or value < 1 for value in (jump_length, resamplings)):
        raise UserError(
            f"jump length and resamplings must be whole numbers of at least 1, not {jump_length!r} and {resamplings!r}"
        )
    levels = [0]
    for start in range(0, steps, jump_length):
        end = min(start + jump_length, steps)
        for walk in range(resamplings):
            levels += ([start] if walk > 0 else []) + list(range(start + 1, end + 1))
    return levels


def add_more_noise(x: Tensor, before: float, after: float, generators: Sequence[torch.Generator]) -> Tensor:
    """x [B, ...] at the noise level alphas_cumprod = `before`, moved to the noisier level `after` (q(x_t | x_s))."""
    noise = draw_noise(generators, x.shape[1:], x.dtype, x.device)
    kept = after / before
    return kept**0.5 * x + (1 - kept) ** 0.5 * noise


def with_known(
    x: Tensor, known: Tensor, unknown: Tensor, alpha: float, generators: Sequence[torch.Generator]
) -> Tensor:
    """x where `unknown`, elsewhere the known image noised to alphas_cumprod = `alpha` (unchanged at 1)."""
    if alpha == 1.0:
        return torch.where(unknown, x, known)
    return torch.where(unknown, x, add_more_noise(known, 1.0, alpha, generators))
