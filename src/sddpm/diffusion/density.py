"""Densities of the noise levels in training, over the time steps of a noise schedule. Users can add their own.

A noise level is given by its noise-to-signal ratio sigma = sqrt((1 - a) / a), a = alphas_cumprod, or by its angle
arctan sigma = arccos sqrt(a), from 0 (the image) to pi / 2 (noise). A density over either is discretised over the time
steps t = 0 .. N - 1: each has the cell from halfway to the previous level to halfway to the next.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sddpm.errors import UserError
from sddpm.registry import register, registered


@dataclass(frozen=True)
class Density:
    """A named density of noise levels.

    Attributes:
        weights: (alphas_cumprod, mean, width) -> unnormalised probability of each time step; float64 [N] from
            float64 [N]. mean and width are 0 and 1 for a density that has none.
        mean, width: their defaults, in the units of the density; None for a density without parameters.
        description: one line, for help texts.
    """

    weights: Callable[[Tensor, float, float], Tensor]
    mean: float | None = None
    width: float | None = None
    description: str = ""

    def probabilities(self, alphas_cumprod: Tensor, mean: float | None = None, width: float | None = None) -> Tensor:
        """Probability of each time step, float64 [N].

        Args:
            alphas_cumprod: table [N].
            mean, width: None for the density's defaults.

        Raises:
            UserError: a mean or width for a density without parameters, a width that is not positive, or weights that
                are invalid: not N, negative, not finite or all zero.
        """
        for name, given, own in (("mean", mean, self.mean), ("width", width, self.width)):
            if given is not None and own is None:
                raise UserError(f"this density of noise levels has no {name}: leave density_{name} out")
        mean = (self.mean or 0.0) if mean is None else mean
        width = (1.0 if self.width is None else self.width) if width is None else width
        if not (math.isfinite(mean) and 0 < width < math.inf):
            raise UserError(f"a density needs a finite mean and a positive width, not {mean} and {width}")
        weights = torch.as_tensor(self.weights(alphas_cumprod.double(), mean, width), dtype=torch.float64)
        valid = weights.shape == alphas_cumprod.shape and (weights.isfinite() & (weights >= 0)).all() and weights.any()
        if not valid:
            raise UserError(
                f"a density must give {len(alphas_cumprod)} finite weights of at least 0, not all 0: with mean "
                f"{mean:g} and "
                f"width {width:g} it does not; choose others, or correct the function"
            )
        return weights / weights.sum()


def uniform(alphas_cumprod: Tensor, mean: float, width: float) -> Tensor:
    """Every time step with the same probability (Ho et al., 2020)."""
    return torch.ones_like(alphas_cumprod)


def log_normal(alphas_cumprod: Tensor, mean: float, width: float) -> Tensor:
    """log sigma normally distributed (Karras et al., 2022, "EDM", table 1: P_mean = -1.2, P_std = 1.2)."""
    log_sigma = ((1 - alphas_cumprod) / alphas_cumprod).log() / 2
    return torch.special.ndtr((_edges(log_sigma) - mean) / width).diff()


def angle(alphas_cumprod: Tensor, mean: float, width: float) -> Tensor:
    """The angle is uniformly distributed, as in the cosine schedule."""
    return _edges(torch.arccos(alphas_cumprod.sqrt())).diff()


def _edges(levels: Tensor) -> Tensor:
    """The edges [N + 1] of the cells of increasing levels [N]; the outer cells are symmetric about their level."""
    if len(levels) == 1:
        return torch.stack([levels[0] - 0.5, levels[0] + 0.5])
    middle = (levels[1:] + levels[:-1]) / 2
    return torch.cat([(2 * levels[:1] - middle[:1]), middle, (2 * levels[-1:] - middle[-1:])])


DENSITIES: dict[str, Density] = {
    "uniform": Density(uniform, description="every time step with the same probability"),
    "log-normal": Density(log_normal, -1.2, 1.2, "log sigma normal, with density_mean and density_width (EDM)"),
    "angle": Density(angle, description="uniform in arccos sqrt(alphas_cumprod)"),
}


def register_density(
    name: str,
    weights: Callable[[Tensor, float, float], Tensor],
    *,
    mean: float | None = None,
    width: float | None = None,
    description: str = "",
) -> None:
    """Add a density for the config key `diffusion.density`.

    Args:
        name: a letter, then letters, digits and any of _.+-
        weights, mean, width, description: as in `Density`.

    Raises:
        UserError: an invalid name, or one that is taken.
    """
    register(DENSITIES, "density", name, Density(weights, mean, width, description))


def find_density(name: str) -> Density:
    """The density of that name. Raises `UserError` if there is none."""
    return registered(DENSITIES, "density", name)
