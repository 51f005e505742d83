"""How sure a difference is: the paired bootstrap over samples (Efron and Tibshirani 1993), and rank correlation."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

LEVEL = 0.95
_EXACT, _PERMUTATIONS = 8, 10_000


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error and its 95 % interval."""

    value: float
    standard_error: float
    interval: tuple[float, float]

    @property
    def below_zero(self) -> bool:
        """Whether it is below zero beyond noise: the whole interval is."""
        return self.interval[1] < 0

    @property
    def above_zero(self) -> bool:
        """Whether it is above zero beyond noise."""
        return self.interval[0] > 0


def draw_weights(count: int, resamples: int, seed: int) -> Tensor:
    """How often each of `count` samples is drawn in each resample, float64 [resamples, count]; the same for a seed."""
    rng = np.random.default_rng(seed)
    rows = [np.bincount(rng.integers(0, count, count), minlength=count) for _ in range(resamples)]
    return torch.from_numpy(np.stack(rows).astype(np.float64))


def estimate(value: float, resampled: Tensor) -> Estimate:
    """A value with the interval of its resampled values [R].

    Their percentiles are moved so that their mean lies at the value: samples drawn twice make covariances look poorer,
    which shifts resampled Fréchet distances; the shift would otherwise be taken for a difference.
    """
    centred = resampled - resampled.mean() + value
    edges = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=resampled.dtype)
    low, high = torch.quantile(centred, edges).tolist()
    return Estimate(value, float(resampled.std()), (low, high))


def spearman(a: list[float], b: list[float], seed: int = 0) -> tuple[float, float]:
    """Spearman's rank correlation, and the share of permutations that correlate as strongly, either way (its p-value).

    All permutations of up to 8 pairs count, else 10,000 random ones. NaN, 1 if either side is constant.
    """
    x, y = _centred_ranks(a), _centred_ranks(b)
    norm = math.sqrt(float(x @ x) * float(y @ y))
    if norm == 0:
        return math.nan, 1.0
    rho = float(x @ y) / norm
    if len(x) <= _EXACT:
        others = np.array(list(itertools.permutations(y))) @ x / norm
        return rho, float((np.abs(others) >= abs(rho) - 1e-12).mean())
    rng = np.random.default_rng(seed)
    others = rng.permuted(np.tile(y, (_PERMUTATIONS, 1)), axis=1) @ x / norm
    return rho, float(((np.abs(others) >= abs(rho) - 1e-12).sum() + 1) / (_PERMUTATIONS + 1))


def _centred_ranks(values: list[float]) -> np.ndarray:
    """Ranks 1 .. N, equal values sharing their mean rank, less the mean of all."""
    array = np.asarray(values, dtype=np.float64)
    below = (array[:, None] > array[None]).sum(1)
    equal = (array[:, None] == array[None]).sum(1)
    ranks = below + (equal + 1) / 2
    return ranks - ranks.mean()
