"""The Inception score (Salimans et al., arXiv 1606.03498)."""

import math
from itertools import pairwise

import torch
from torch import Tensor

from sddpm.errors import UserError
from sddpm.evaluation.metrics.score import Features, Score, jackknife_rows


def inception_score(logits: Features, *, splits: int = 10, interval: bool = False) -> Score:
    """exp of the mean KL divergence from each image's class probabilities to the mean of its split, averaged over the
    splits; `std` is the population standard deviation over them, as published scores have it.

    Raises:
        UserError: fewer samples than splits.
    """
    rows = torch.cat(list(logits.chunks()))
    check_splits(len(rows), splits)
    scores = _scores(rows, splits)
    value = float(scores.mean())
    error, bounds = (
        jackknife_rows(lambda x: float(_scores(x, splits).mean()), rows, value) if interval else (None, None)
    )
    return Score(value, float(scores.std(correction=0)), error, bounds, {"splits": splits})


def check_splits(count: int, splits: int) -> None:
    """Raise `UserError` if `count` samples are too few for so many splits."""
    if not 1 <= splits <= count:
        raise UserError(f"the Inception score needs at least one sample a split: {count} samples, {splits} splits")


def _scores(logits: Tensor, splits: int) -> Tensor:
    """One score a split; split i holds the samples from i N / splits on."""
    bounds = [i * len(logits) // splits for i in range(splits + 1)]
    return torch.stack([_score(logits[a:b]) for a, b in pairwise(bounds)])


def _score(logits: Tensor) -> Tensor:
    log_p = logits.log_softmax(1)
    log_mean = torch.logsumexp(log_p, 0) - math.log(len(log_p))
    return (log_p.exp() * (log_p - log_mean)).sum(1).mean().exp()
