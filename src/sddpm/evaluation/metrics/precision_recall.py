"""Improved precision and recall (Kynkäänniemi et al., arXiv 1904.06991), in Inception features as ADM reports them."""

import torch
from torch import Tensor

from sddpm.errors import UserError
from sddpm.evaluation.metrics.score import Features, Score, jackknife_rows

LIMIT = 10_000  # vectors a side, as in the paper's evaluation
_CHUNK = 1000


def precision(samples: Features, reference: Features, *, k: int = 3, interval: bool = False) -> Score:
    """The share of samples that lie within the reference's manifold: the balls around reference vectors that reach to
    their k-th nearest neighbour. The first 10,000 vectors of each side count.

    Raises:
        UserError: no more than k vectors on a side.
    """
    x, y = _both(samples, reference, k)
    inside = covered(x, y, ball_radii(y, k)).double()
    value = float(inside.mean())
    bounds = jackknife_rows(lambda kept: float(kept.mean()), inside[:, None], value) if interval else (None, None)
    return Score(value, None, *bounds, _details(x, y, k))


def recall(samples: Features, reference: Features, *, k: int = 3, interval: bool = False) -> Score:
    """The share of reference vectors that lie within the samples' manifold; otherwise as `precision`."""
    x, y = _both(samples, reference, k)
    value = _coverage(y, x, k)
    bounds = jackknife_rows(lambda kept: _coverage(y, kept, k), x, value) if interval else (None, None)
    return Score(value, None, *bounds, _details(x, y, k))


def ball_radii(vectors: Tensor, k: int) -> Tensor:
    """Squared distance of each of [N, D] to its k-th nearest other, [N]."""
    return torch.cat([squared_distances(chunk, vectors).kthvalue(k + 1, 1).values for chunk in vectors.split(_CHUNK)])


def covered(queries: Tensor, centres: Tensor, radii: Tensor) -> Tensor:
    """Whether each query [N, D] lies in a ball of squared radius [M] around any centre [M, D]; bool [N]."""
    return torch.cat([(squared_distances(chunk, centres) <= radii).any(1) for chunk in queries.split(_CHUNK)])


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """[N, D] and [M, D] -> [N, M], exactly 0 for equal vectors only up to rounding, never negative."""
    return (a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T).clamp(min=0)


def _coverage(queries: Tensor, centres: Tensor, k: int) -> float:
    return float(covered(queries, centres, ball_radii(centres, k)).double().mean())


def _both(samples: Features, reference: Features, k: int) -> tuple[Tensor, Tensor]:
    x, y = samples.take(slice(0, LIMIT)), reference.take(slice(0, LIMIT))
    if k < 1 or min(len(x), len(y)) <= k:
        raise UserError(f"precision and recall need more than k = {k} images a side, not {len(x)} and {len(y)}")
    if x.shape[1] != y.shape[1]:
        raise UserError("precision and recall need the same features of samples and reference")
    return x, y


def _details(x: Tensor, y: Tensor, k: int) -> dict[str, int]:
    return {"k": k, "samples": len(x), "reference": len(y)}
