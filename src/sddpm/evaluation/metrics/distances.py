"""Distances of weighted samples from a reference, for the bootstrap, which draws samples several times."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sddpm.evaluation.metrics.kid import polynomial_kernel
from sddpm.evaluation.metrics.score import Features
from sddpm.evaluation.statistics import Gaussian, psd_root

KID_REFERENCE = 10_000  # at most so many reference images, evenly spaced: more hardly change the value
_CHUNK = 1000


@dataclass(frozen=True)
class Distance:
    """weighted: (features float64 [N, D], count of each [R, N]) -> [R] distances. identity: a hash that distinguishes
    distances to different references.
    """

    weighted: Callable[[Tensor, Tensor], Tensor]
    identity: str

    def __call__(self, rows: Tensor) -> float:
        """The distance of features [N, D], each counted once."""
        return float(self.weighted(rows, torch.ones(1, len(rows), dtype=torch.float64))[0])


def mean_of(rows: Tensor, weights: Tensor) -> Tensor:
    """Weighted means [R] of numbers [N, 1], with the same signature."""
    return (weights @ rows)[:, 0] / weights.sum(1)


def frechet_to(reference: Gaussian) -> Distance:
    """Squared Fréchet distance to a Gaussian, as in `evaluation.frechet_distance`.

    The features are multiplied by the root of the reference's covariance once; each resample then costs a covariance
    and the eigenvalues of a symmetric matrix.
    """
    root = psd_root(reference.covariance)
    total = float(reference.covariance.trace())

    def weighted(rows: Tensor, weights: Tensor) -> Tensor:
        centre = rows.mean(0)
        centred = rows - centre
        turned, lengths = centred @ root, centred.square().sum(1)
        found = []
        for w in weights:
            drawn = w.nonzero()[:, 0]
            w, n = w[drawn], float(w.sum())
            shift = w @ centred[drawn] / n
            moved = shift @ root
            part = turned[drawn] * w.sqrt()[:, None]
            inner = (part.T @ part - n * torch.outer(moved, moved)) / (n - 1)  # root covariance root
            trace = (w @ lengths[drawn] - n * shift.square().sum()) / (n - 1)
            roots = torch.linalg.eigvalsh(inner).clamp(min=0).sqrt().sum()
            found.append((centre + shift - reference.mean).square().sum() + trace + total - 2 * roots)
        return torch.stack(found).clamp(min=0)

    return Distance(weighted, _hash("frechet", reference.mean, reference.covariance))


def kid_to(reference: Features) -> Distance:
    """Squared maximum mean discrepancy with KID's kernel, unbiased, over all samples at once, not over random subsets.

    Pairs of the same sample drawn twice are left out, so that a resample stays unbiased.
    """
    step = max(1, -(-len(reference) // KID_REFERENCE))
    y = reference.take(np.arange(0, len(reference), step))
    among = sum(float(polynomial_kernel(part, y).sum()) for part in y.split(_CHUNK))
    own = (among - float(((y.square().sum(1) / y.shape[1] + 1) ** 3).sum())) / (len(y) * (len(y) - 1))

    def weighted(rows: Tensor, weights: Tensor) -> Tensor:
        pairs = torch.zeros(len(weights), dtype=torch.float64)
        across = torch.empty(len(rows), dtype=torch.float64)
        for start in range(0, len(rows), _CHUNK):
            part = slice(start, start + _CHUNK)
            kernel = polynomial_kernel(rows, rows[part])
            kernel[range(start, start + kernel.shape[1]), range(kernel.shape[1])] = 0
            pairs += ((weights @ kernel) * weights[:, part]).sum(1)
            across[part] = polynomial_kernel(rows[part], y).mean(1)
        count = weights.sum(1)
        return pairs / (count.square() - weights.square().sum(1)) + own - 2 * weights @ across / count

    return Distance(weighted, _hash("kid", y))


def _hash(name: str, *tensors: Tensor) -> str:
    digest = hashlib.sha256(name.encode())
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
