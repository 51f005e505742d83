"""The Inception score (Salimans et al., arXiv 1606.03498)."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from sddpm.errors import UserError
from sddpm.evaluation.metrics.score import GROUPS, Counts, Features, Score, jackknife, membership


def inception_score(logits: Features, *, splits: int = 10, interval: bool = False) -> Score:
    """exp of the mean KL divergence from each image's class probabilities to the mean of its split, averaged over the
    splits. `std` is the population standard deviation over the splits, as in published scores. Split i starts at sample
    i N / splits. Memory does not grow with the number of samples.

    Raises:
        UserError: fewer samples than splits; splits too small for an interval.
    """
    check_splits(len(logits), splits, interval)
    bounds = [i * len(logits) // splits for i in range(splits + 1)]
    sums = [_sums(logits, np.arange(a, b)) for a, b in pairwise(bounds)]
    everyone = torch.ones(GROUPS, dtype=torch.bool)
    scores = torch.stack([each.score(everyone) for each in sums])
    value = float(scores.mean())

    def without(g: int) -> float:
        others = everyone.clone()
        others[g] = False
        return float(torch.stack([each.score(others) for each in sums]).mean())

    error, bounds_95 = jackknife(without, value, len(logits), low=1) if interval else (None, None)
    return Score(value, float(scores.std(correction=0)), error, bounds_95, {"splits": splits})


def check_inception_score(counts: Counts, *, splits: int, interval: bool = False) -> None:
    """Call `check_splits` before anything is sampled."""
    check_splits(counts.samples, splits, interval)


def check_splits(count: int, splits: int, interval: bool = False) -> None:
    """Raise `UserError` if `count` samples are too few for so many splits, or splits too small for an interval."""
    if not 1 <= splits <= count:
        raise UserError(f"the Inception score needs at least one sample per split: {count} samples, {splits} splits")
    if interval and count // splits <= -(-count // GROUPS):  # leaving out a group could empty a split
        raise UserError(f"an interval of the Inception score needs fewer than {GROUPS} splits, not {splits}")


@dataclass(frozen=True)
class _Sums:
    """Sums over a split, by group: of 1 [G], of p [G, classes], and of sum_c p log p [G]."""

    count: Tensor
    p: Tensor
    p_log_p: Tensor

    def score(self, groups: Tensor) -> Tensor:
        """For the samples in `groups` (bool [G]): mean KL(p, mean p) = mean sum p log p - sum mean p log mean p."""
        count = self.count[groups].sum()
        mean = self.p[groups].sum(0) / count
        return (self.p_log_p[groups].sum() / count - torch.xlogy(mean, mean).sum()).exp()


def _sums(logits: Features, indices: np.ndarray) -> _Sums:
    member = torch.from_numpy(membership(len(logits))[indices])
    classes = logits.take(indices[:1]).shape[1]
    sums = _Sums(*(torch.zeros(GROUPS, *shape, dtype=torch.float64) for shape in ((), (classes,), ())))
    start = 0
    for chunk in logits.chunks(indices):
        log_p = chunk.log_softmax(1)
        p = log_p.exp()
        here = member[start : start + len(chunk)]
        sums.count.index_add_(0, here, torch.ones(len(chunk), dtype=torch.float64))
        sums.p.index_add_(0, here, p)
        sums.p_log_p.index_add_(0, here, (p * log_p).sum(1))
        start += len(chunk)
    return sums
