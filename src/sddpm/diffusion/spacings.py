"""Candidate spacings of n time steps for a search: each is even in one measure of noise, up to rounding.

All start at N - 1 and make n strides, the last one to the clean image; a = alphas_cumprod, sigma = sqrt((1 - a) / a).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from sddpm.diffusion.timesteps import check_steps, respaced_timesteps


def trailing(n: int, alphas_cumprod: Tensor) -> list[int]:
    """Even in t ("trailing" in Lin et al., 2024)."""
    return respaced_timesteps(n, len(alphas_cumprod))


def quadratic(n: int, alphas_cumprod: Tensor) -> list[int]:
    """Even in the square root of t (Song et al., 2021, appendix D.3)."""
    return _falling([len(alphas_cumprod) * ((n - i) / n) ** 2 - 1 for i in range(n)], len(alphas_cumprod))


def log_snr(n: int, alphas_cumprod: Tensor) -> list[int]:
    """Even in log sigma, down to its value at t = 0 (Lu et al., 2022)."""
    levels = ((1 - alphas_cumprod) / alphas_cumprod).double().log() / 2
    return _at(levels, torch.linspace(float(levels[-1]), float(levels[0]), n + 1, dtype=torch.float64)[:n])


def angle(n: int, alphas_cumprod: Tensor) -> list[int]:
    """Even in the angle arctan sigma, down to 0."""
    levels = torch.arccos(alphas_cumprod.double().sqrt())
    return _at(levels, torch.linspace(float(levels[-1]), 0.0, n + 1, dtype=torch.float64)[:n])


SPACINGS: dict[str, Callable[[int, Tensor], list[int]]] = {
    "trailing": trailing,
    "quadratic": quadratic,
    "log-snr": log_snr,
    "angle": angle,
}


def _at(levels: Tensor, wanted: Tensor) -> list[int]:
    """The time steps whose increasing `levels` [N] are nearest to the `wanted` ones [n]."""
    nearest = (levels[None] - wanted[:, None]).abs().argmin(1)
    return _falling(nearest.tolist(), len(levels))


def _falling(wanted: list[float], total: int) -> list[int]:
    """Round to decreasing time steps from N - 1, leaving room for those that follow."""
    n = len(wanted)
    check_steps(n, total)
    found = [total - 1]
    for i in range(1, n):
        found.append(max(min(round(wanted[i]), found[-1] - 1), n - 1 - i))
    return found
