"""Noise by seed: every sample has its own generator, so its noise depends neither on its batch nor on the device (the
generators are on the CPU)."""

import math
import numbers
from collections.abc import Iterable, Sequence

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from sddpm.errors import UserError

MAX_SEED = 2**32 - 1  # torch's CPU generator (mt19937) uses 32 bits: a larger seed would repeat a smaller one


def check_seeds(seeds: Iterable[int]) -> None:
    """Raise UserError if a seed is not a whole number from 0 to 2^32 - 1."""
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
            raise UserError(f"a seed must be a whole number, not {seed!r}")
        if not 0 <= seed <= MAX_SEED:
            raise UserError(f"seed {seed} is out of range: seeds go from 0 to {MAX_SEED}")


def check_noise_clip(bound: float) -> None:
    """Raise UserError unless `bound` is a number over 0; infinity is one."""
    number = isinstance(bound, int | float) and not isinstance(bound, bool)
    if not number or math.isnan(bound) or bound <= 0:
        raise UserError(f"noise_clip must be a positive number of standard deviations such as 2, not {bound!r}")


def clip_noise(x: Tensor, bound: float | None) -> Tensor:
    """Initial noise with its values limited to -bound .. bound; None for no limit."""
    return x if bound is None else x.clamp(-bound, bound)


def generators_for(seeds: Sequence[int]) -> list[torch.Generator]:
    """One fresh CPU generator per seed.

    Raises:
        UserError: a seed that is not a whole number from 0 to 2^32 - 1.
    """
    check_seeds(seeds)
    return [torch.Generator().manual_seed(int(seed)) for seed in seeds]


def draw_noise(
    generators: Sequence[torch.Generator],
    shape_of_one: Sequence[int],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Standard normal noise [B, *shape_of_one], each sample from its own generator, which advances.

    Drawn in float32 and then cast, so that a seed gives the same picture in every precision.
    """
    samples = [
        torch.randn(tuple(shape_of_one), generator=generator, dtype=torch.float32, device="cpu")
        for generator in generators
    ]
    return torch.stack(samples).to(dtype).to(device)


def seeded_noise(
    seeds: Sequence[int],
    shape_of_one: Sequence[int],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Standard normal noise [len(seeds), *shape_of_one]: the x_T of each seed.

    Raises:
        UserError: a seed that is not a whole number from 0 to 2^32 - 1.
    """
    return draw_noise(generators_for(seeds), shape_of_one, dtype, device)


def step_noise(like: Tensor, generator: torch.Generator | Sequence[torch.Generator] | None) -> Tensor:
    """Standard normal noise for one step of a solver, of the shape, precision and device of `like`.

    Drawn in float32 and then cast, as in `draw_noise`. (The solvers ddpm and sde-dpm++ are diffusers' and draw in the
    precision of the samples: theirs differ in float64.)
    """
    drawn = randn_tensor(like.shape, generator=generator, device=like.device, dtype=torch.float32)  # type: ignore[arg-type]
    return drawn.to(like.dtype)
