"""The uncertainty of a difference: the paired bootstrap over samples (Efron and Tibshirani 1993), and rank
correlation."""

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
        """Whether it is significantly below zero: the whole interval is."""
        return self.interval[1] < 0

    @property
    def above_zero(self) -> bool:
        """Whether it is significantly above zero: the whole interval is."""
        return self.interval[0] > 0

    @property
    def interval_in_words(self) -> str:
        """Such as "-0.2 to +0.1"."""
        return "{:+.4g} to {:+.4g}".format(*self.interval)


def draw_weights(count: int, resamples: int, seed: int) -> Tensor:
    """How often each of `count` samples is drawn in each resample, float64 [resamples, count]; fixed by the seed."""
    rng = np.random.default_rng(seed)
    rows = [np.bincount(rng.integers(0, count, count), minlength=count) for _ in range(resamples)]
    return torch.from_numpy(np.stack(rows).astype(np.float64))


def estimate(value: float, resampled: Tensor) -> Estimate:
    """A value with the confidence interval from its resampled values [R].

    The percentiles are shifted so that their mean is the value. Repeated samples reduce the variation in a resample,
    which biases resampled Fréchet distances; without the shift this bias would look like a difference.
    """
    centred = resampled - resampled.mean() + value
    edges = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=resampled.dtype)
    low, high = torch.quantile(centred, edges).tolist()
    return Estimate(value, float(resampled.std()), (low, high))


def spearman(a: list[float], b: list[float], seed: int = 0) -> tuple[float, float]:
    """Spearman's rank correlation, and its two-sided p-value: the share of permutations with at least as strong a
    correlation.

    Uses all permutations for up to 8 pairs, else 10,000 random ones. Returns (NaN, 1) if either list is constant.
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
    """Ranks 1 .. N, equal values share their mean rank, minus the mean of all ranks."""
    array = np.asarray(values, dtype=np.float64)
    below = (array[:, None] > array[None]).sum(1)
    equal = (array[:, None] == array[None]).sum(1)
    ranks = below + (equal + 1) / 2
    return ranks - ranks.mean()
