"""Measures the second moment of a model's predicted noise, which Analytic-DPM needs."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from sddpm.errors import UserError


@dataclass(frozen=True)
class Moments:
    """h: E ||epsilon(x_t, t)||^2 / d for t = 0 .. N - 1; standard_error: of each h; samples: number of images
    measured."""

    h: list[float]
    standard_error: list[float]
    samples: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the config of a scheduler; `from_dict` reads them."""
        return asdict(self)

    @staticmethod
    def from_dict(plain: Mapping[str, Any], num_train_timesteps: int) -> "Moments":
        """Raises `UserError` unless these are the moments of a model with `num_train_timesteps` diffusion steps."""
        again = "measure them again with `sddpm moments MODEL`"
        if set(plain) != {"h", "standard_error", "samples"} or not _all_positive(plain["h"]):
            raise UserError(f"the moments of this model are damaged: {again}")
        if (steps := len(plain["h"])) != num_train_timesteps:
            raise UserError(
                f"moments of {steps} diffusion steps do not fit a model with {num_train_timesteps}: {again}"
            )
        return Moments(list(plain["h"]), list(plain["standard_error"]), plain["samples"])


def _all_positive(numbers: Any) -> bool:
    return isinstance(numbers, list | tuple) and all(type(x) in (int, float) and 0 < x < math.inf for x in numbers)


class MomentSums:
    """Sums accumulated over images, from which h(t) and its standard error are computed.

    The true noise, whose second moment is known to be 1, is the control variate: where the prediction is close to the
    noise, h is far more precise than from the prediction alone.
    """

    def __init__(self, num_train_timesteps: int):
        self.samples = 0
        # Centred at 0, so that squares do not cancel: y = |predicted|^2 / d - 1, z = |true|^2 / d - 1.
        self._sums = torch.zeros(5, num_train_timesteps, dtype=torch.float64)  # y, z, yy, yz, zz

    def add(self, predicted: Tensor, true: Tensor) -> None:
        """Add images.

        Args:
            predicted: mean square over the pixels of the predicted noise, float64 [N, B].
            true: the same for the true noise, float64 [B].
        """
        y, z = predicted.cpu() - 1, (true.cpu() - 1).expand(predicted.shape)
        self._sums += torch.stack([y, z, y * y, y * z, z * z]).sum(2)
        self.samples += len(true)

    def result(self) -> Moments:
        """The moments of the images so far. Raises `UserError` below 3 images."""
        n = self.samples
        if n < 3:
            raise UserError(f"moments need at least 3 images, not {n}")
        y, z, yy, yz, zz = self._sums / n
        covariance, variance = yz - y * z, zz - z * z
        slope = covariance / variance
        residual = (yy - y * y - slope * covariance).clamp(min=0.0) * n / (n - 2)
        return Moments((1 + y - slope * z).tolist(), (residual / n).sqrt().tolist(), n)
