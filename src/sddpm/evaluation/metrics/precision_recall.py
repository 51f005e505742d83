"""Improved precision and recall (Kynkäänniemi et al., arXiv 1904.06991), in Inception features, as reported by ADM."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sddpm.errors import UserError
from sddpm.evaluation.metrics.score import GROUPS, Counts, Features, Score, jackknife, membership

LIMIT = 10_000  # vectors of samples and of the reference, as in the paper's evaluation
_BLOCK = 1000


def precision(samples: Features, reference: Features, *, k: int = 3, interval: bool = False) -> Score:
    """The share of samples within the reference's manifold, the union of balls around reference vectors that reach to
    their k-th nearest neighbour. If there are more than 10,000 vectors, 10,000 are drawn at random with a fixed seed.

    Distances are computed in blocks, so that memory does not grow with the number of vectors.

    Raises:
        UserError: no more than k samples or reference vectors.
    """
    x, y = _both(samples, reference, k)
    inside = covered(x, y, ball_radii(y, k)).double()[0].numpy()
    value = float(inside.mean())
    member = membership(len(x))
    bounds = _interval(lambda g: float(inside[member != g].mean()), value, len(x)) if interval else (None, None)
    return Score(value, None, *bounds, _details(x, y, k), (len(x), len(y)))


def recall(samples: Features, reference: Features, *, k: int = 3, interval: bool = False) -> Score:
    """The share of reference vectors within the samples' manifold; otherwise as `precision`."""
    x, y = _both(samples, reference, k)
    inside = covered(y, x, ball_radii(x, k, membership(len(x)) if interval else None)).double().mean(1)
    value = float(inside[0])
    bounds = _interval(lambda g: float(inside[1 + g]), value, len(x)) if interval else (None, None)
    return Score(value, None, *bounds, _details(x, y, k), (len(x), len(y)))


def _interval(without: Callable[[int], float], value: float, count: int) -> tuple[float, tuple[float, float]]:
    return jackknife(without, value, count, low=0, high=1)


@dataclass(frozen=True)
class Vectors:
    """The feature vectors at some indices, a block at a time."""

    features: Features
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """The slice of each block, and its vectors, float64 [B, D]."""
        for start in range(0, len(self), _BLOCK):
            part = slice(start, start + _BLOCK)
            yield part, self.features.take(self.indices[part])


def ball_radii(vectors: Vectors, k: int, member: np.ndarray | None = None) -> Tensor:
    """Squared distance of each vector to its k-th nearest other: [1, N].

    If the group of each vector is given in `member` [N], also the radii without each group, [1 + GROUPS, N]; the
    vectors of the omitted group have radius -1: no ball.
    """
    groups = torch.zeros(len(vectors), dtype=torch.long) if member is None else torch.from_numpy(member)
    count = 1 if member is None else GROUPS
    radii = torch.empty(1 if member is None else 1 + GROUPS, len(vectors), dtype=torch.float64)
    for rows, queries in vectors.blocks():
        near = _nearest_by_group(queries, vectors, groups, count, k + 1)  # each is its own nearest
        radii[0, rows] = near.flatten(1).kthvalue(k + 1, 1).values
        for g in range(len(radii) - 1):
            others = near[:, torch.arange(count) != g]
            radii[1 + g, rows] = others.flatten(1).kthvalue(k + 1, 1).values.where(groups[rows] != g, -1.0)
    return radii


def _nearest_by_group(queries: Tensor, vectors: Vectors, groups: Tensor, count: int, most: int) -> Tensor:
    """The `most` smallest squared distances to the vectors of each group: [queries, count, most], padded with inf."""
    near = torch.full((len(queries), count, most), torch.inf, dtype=torch.float64)
    for columns, others in vectors.blocks():
        distances = squared_distances(queries, others)
        for g in range(count):
            both = torch.cat([near[:, g], distances[:, groups[columns] == g]], 1)
            near[:, g] = both.topk(most, 1, largest=False).values
    return near


def covered(queries: Vectors, centres: Vectors, radii: Tensor) -> Tensor:
    """Whether each query lies in a ball around any centre, for each row of squared `radii` [R, M]: bool [R, N]."""
    inside = torch.zeros(len(radii), len(queries), dtype=torch.bool)
    for rows, points in queries.blocks():
        for columns, middles in centres.blocks():
            distances = squared_distances(points, middles)
            for r, radius in enumerate(radii[:, columns]):
                inside[r, rows] |= (distances <= radius).any(1)
    return inside


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """[N, D] and [M, D] -> [N, M]; never negative; 0 for equal vectors only up to rounding."""
    return (a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T).clamp(min=0)


def check_precision_recall(counts: Counts, *, interval: bool = False) -> None:
    """Call `check_neighbours` before anything is sampled."""
    if counts.reference is not None:
        check_neighbours(counts.samples, counts.reference)


def check_neighbours(samples: int, reference: int, k: int = 3) -> None:
    """Raise `UserError` if there are too few images for a k-th neighbour."""
    if k < 1 or min(samples, reference) <= k:
        raise UserError(
            f"precision and recall need more than k = {k} samples and reference images, not {samples} and {reference}"
        )


def _both(samples: Features, reference: Features, k: int) -> tuple[Vectors, Vectors]:
    x, y = (Vectors(each, _chosen(len(each))) for each in (samples, reference))
    check_neighbours(len(x), len(y), k)
    if samples.take([0]).shape != reference.take([0]).shape:
        raise UserError("precision and recall need the same number of features for samples and reference")
    return x, y


def _chosen(count: int) -> np.ndarray:
    """At most `LIMIT` random indices below `count`, sorted. They are random because the first images may be of one
    class."""
    if count <= LIMIT:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, LIMIT, replace=False))


def _details(x: Vectors, y: Vectors, k: int) -> dict[str, int]:
    return {"k": k, "samples": len(x), "reference": len(y)}
