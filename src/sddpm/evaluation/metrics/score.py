"""The inputs and results of metrics, and confidence intervals for any metric."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sddpm.errors import UserError
from sddpm.evaluation.statistics import Gaussian, Moments

GROUPS = 20
_T_QUANTILE = 2.093  # Student's t, 97.5 %, GROUPS - 1 degrees of freedom
_CHUNK = 500


class Rows(Protocol):
    """Feature vectors [N, D], in memory (a NumPy array) or on disk (`evaluation.shards.Shards`)."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, index: Any) -> np.ndarray: ...


@dataclass(frozen=True)
class Features:
    """Feature vectors [N, D], or only their Gaussian if the reference is a statistics file.

    summed: the moments of all vectors, if already computed (by several processes).
    labels: the class of each image, int64 [N], for metrics that need it.
    """

    name: str
    rows: Rows | None
    known: Gaussian | None = None
    summed: Moments | None = None
    labels: np.ndarray | None = None

    @property
    def count(self) -> int | None:
        if self.rows is not None:
            return self.rows.shape[0]
        return self.known.count if self.known is not None else None

    @cached_property
    def moments(self) -> Moments:
        """Count, mean and scatter of all vectors, in one pass."""
        return self.summed if self.summed is not None else Moments.of_batches(self.chunks())

    @cached_property
    def gaussian(self) -> Gaussian:
        """Mean and covariance. Raises `UserError` for fewer than 2 vectors."""
        return self.known if self.known is not None else self.moments.gaussian()

    def chunks(self, indices: np.ndarray | None = None) -> Iterator[Tensor]:
        """The vectors at `indices` (None: all) in order, a few hundred at a time."""
        for start in range(0, len(self) if indices is None else len(indices), _CHUNK):
            part = slice(start, start + _CHUNK)
            yield self.take(part if indices is None else indices[part])

    def take(self, index: Any) -> Tensor:
        """The vectors at a slice or an integer array, float64 [M, D].

        Raises:
            UserError: only the statistics of the vectors are known.
        """
        if self.rows is None:
            raise UserError("a statistics file has no feature vectors: this metric needs images as reference")
        return torch.from_numpy(np.ascontiguousarray(self.rows[index])).double()

    def __len__(self) -> int:
        if self.rows is None:
            raise UserError("a statistics file has no feature vectors: this metric needs images as reference")
        return self.rows.shape[0]


@dataclass(frozen=True)
class Score:
    """A number and its uncertainty.

    std: spread over splits or subsets, if the metric has them.
    standard_error: standard error of the value, over subsets, or by the jackknife if an interval is requested.
    interval: 95 % interval due to the randomness of the samples; the reference is taken as fixed.
    details: settings that affect the number, such as subset sizes.
    used: number of samples and reference images used, for metrics that use a subset.
    """

    value: float
    std: float | None = None
    standard_error: float | None = None
    interval: tuple[float, float] | None = None
    details: dict[str, Any] = field(default_factory=dict)
    used: tuple[int, int] | None = None


@dataclass(frozen=True)
class Counts:
    """The amounts of data to measure. reference: number of images, None if only statistics are known, or there is no
    reference. length: length of the feature vectors."""

    name: str
    samples: int
    reference: int | None
    length: int
    minimum: int


def check_minimum(counts: Counts, **_: Any) -> None:
    """Raise `UserError` if there are fewer images than a metric always needs."""
    for what, count in (("samples", counts.samples), ("reference images", counts.reference)):
        if count is not None and count < counts.minimum:
            raise UserError(f"{counts.name} needs at least {counts.minimum:,} {what}, not {count:,}")


def membership(count: int) -> np.ndarray:
    """The group, 0 to `GROUPS` - 1, of each of `count` samples: int64 [count], always the same for a count.

    Drawn at random, because samples can have an order (by class, for example) that correlates with regular groups.
    """
    return np.random.default_rng(0).permutation(count) % GROUPS


def group(g: int, count: int) -> np.ndarray:
    """The indices of group g, in order."""
    return np.flatnonzero(membership(count) == g)


def check_interval(count: int) -> None:
    """Raise `UserError` if `count` samples are too few for an interval."""
    if count < 2 * GROUPS:
        raise UserError(f"an interval needs at least {2 * GROUPS} samples, not {count}")


def jackknife(
    without: Callable[[int], float], value: float, count: int, low: float = -math.inf, high: float = math.inf
) -> tuple[float, tuple[float, float]]:
    """Standard error and 95 % interval by the delete-a-group jackknife (Kott 2001) with 20 groups.

    The bootstrap is not used because repeated samples make covariances and neighbours look less diverse, which shifts
    FID and recall; leaving samples out has almost no such effect.

    Args:
        without: g -> the metric of all samples except those of group g.
        value: the metric of all samples.
        count: number of samples.
        low, high: bounds of the metric, and therefore of the interval.

    Raises:
        UserError: fewer than two samples per group.
    """
    check_interval(count)
    values = [without(g) for g in range(GROUPS)]
    mean = math.fsum(values) / GROUPS
    error = math.sqrt((GROUPS - 1) / GROUPS * math.fsum((v - mean) ** 2 for v in values))
    return error, (max(value - _T_QUANTILE * error, low), min(value + _T_QUANTILE * error, high))
