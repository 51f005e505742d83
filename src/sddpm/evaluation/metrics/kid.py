"""Kernel Inception distance (Bińkowski et al., arXiv 1801.01401)."""

import math

import numpy as np
import torch
from torch import Tensor

from sddpm.errors import UserError
from sddpm.evaluation.metrics.score import GROUPS, Counts, Features, Score, jackknife, membership


def kid(
    samples: Features,
    reference: Features,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
    interval: bool = False,
) -> Score:
    """Squared maximum mean discrepancy with the kernel (x.y / D + 1)^3, unbiased, as the mean over random subsets.

    Unlike FID it is unbiased for few samples, and can be slightly negative.

    Args:
        samples, reference: features [N, D] and [M, D].
        subsets: number of subsets; each draws from samples and reference without replacement.
        subset_size: number of vectors from each (at most all).
        seed: seed of the draw.
        interval: whether to add a 95 % interval, by the jackknife; the subsets stay the same.

    Returns:
        The mean; `std` over the subsets; `standard_error` by the jackknife over the samples, if subsets have at least
            40 vectors: it is the spread of values over other samples of the same kind. (Other tools report
            std / sqrt(subsets), the spread over other subsets of the same samples, which gets arbitrarily small.)

    Raises:
        UserError: fewer than 2 samples or reference vectors, or too small settings.
    """
    if samples.take([0]).shape != reference.take([0]).shape:
        raise UserError("kid needs the same number of features for samples and reference")
    size = min(subset_size, len(samples), len(reference))
    check_subsets(subsets, size, interval)
    rng = np.random.default_rng(seed)
    member = membership(len(samples))
    enough = size >= 2 * GROUPS
    whole, without = [], []
    for _ in range(subsets):
        chosen = rng.choice(len(samples), size, replace=False)
        x = samples.take(chosen)
        y = reference.take(rng.choice(len(reference), size, replace=False))
        members = torch.from_numpy(member[chosen])
        value, left_out = _subset(x, y, members if enough else None)
        whole.append(value)
        without.append(left_out)
    mean = math.fsum(whole) / subsets
    std = float(np.std(whole, ddof=1)) if subsets > 1 else None
    details = {"subsets": subsets, "subset_size": size, "seed": seed, "degree": 3}
    if not enough:
        return Score(mean, std, None, None, details)
    means = torch.stack([x for x in without if x is not None]).mean(0)
    error, bounds = jackknife(lambda g: float(means[g]), mean, len(samples))
    return Score(mean, std, error, bounds if interval else None, details)


def check_kid(counts: Counts, *, subsets: int, subset_size: int, interval: bool = False) -> None:
    """Call `check_subsets` before anything is sampled."""
    if counts.reference is not None:
        check_subsets(subsets, min(subset_size, counts.samples, counts.reference), interval)


def check_subsets(subsets: int, size: int, interval: bool) -> None:
    """Raise `UserError` if there are too few subsets or images per subset."""
    if size < 2 or subsets < 1:
        raise UserError(f"kid needs at least 1 subset of at least 2 images, not {subsets} of {size}")
    if interval and size < 2 * GROUPS:
        raise UserError(f"an interval of kid needs subsets of at least {2 * GROUPS} images, not {size}")


def polynomial_kernel(x: Tensor, y: Tensor) -> Tensor:
    """(x_i . y_j / D + 1)^3 for vectors [N, D] and [M, D] -> [N, M]."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def _subset(x: Tensor, y: Tensor, groups: Tensor | None) -> tuple[float, Tensor | None]:
    """The unbiased estimate from x and y, and those that leave out each group of x, from sums over pairs of groups."""
    k_xx, k_yy = polynomial_kernel(x, x).fill_diagonal_(0), polynomial_kernel(y, y).fill_diagonal_(0)
    k_xy = polynomial_kernel(x, y)
    n, m = len(x), len(y)
    y_term = k_yy.sum() / (m * (m - 1))
    value = float(k_xx.sum() / (n * (n - 1)) + y_term - 2 * k_xy.mean())
    if groups is None:
        return value, None
    member = torch.nn.functional.one_hot(groups, GROUPS).to(x.dtype)  # [n, GROUPS]
    among = member.T @ k_xx @ member
    left = n - member.sum(0)
    x_sum = k_xx.sum() - 2 * among.sum(1) + among.diagonal()
    xy_sum = k_xy.sum() - member.T @ k_xy.sum(1)
    return value, x_sum / (left * (left - 1)) + y_term - 2 * xy_sum / (left * m)
