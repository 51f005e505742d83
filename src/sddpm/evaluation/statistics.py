"""Streaming means and covariances, and the Fréchet distance between two Gaussians; all in float64."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from sddpm.errors import UserError


@dataclass(frozen=True)
class Gaussian:
    """mean float64 [D], covariance float64 [D, D]; `count`: number of vectors (None: unknown)."""

    mean: Tensor
    covariance: Tensor
    count: int | None = None

    @property
    def dim(self) -> int:
        return len(self.mean)


@dataclass(frozen=True)
class Moments:
    """Count, mean float64 [D] and scatter float64 [D, D] = sum (x - mean)(x - mean)^T of the vectors seen so far.

    Two of them can be combined (Chan, Golub, LeVeque 1979), so that batches, shards and processes can be added in any
    order, and memory does not grow with the number of vectors.
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, vectors: Tensor) -> "Moments":
        """The moments of vectors [N, D], N >= 0."""
        x = torch.as_tensor(vectors).double()
        mean = x.mean(0) if len(x) else x.new_zeros(x.shape[1])
        centred = x - mean
        return cls(len(x), mean, centred.T @ centred)

    @classmethod
    def of_batches(cls, batches: Iterable[Tensor]) -> "Moments":
        """The moments of all vectors in at least one batch [N, D]."""
        total: Moments | None = None
        for batch in batches:
            total = cls.of(batch) if total is None else total + cls.of(batch)
        if total is None:
            raise UserError("no feature vectors: there are no images")
        return total

    @classmethod
    def nothing(cls, dim: int) -> "Moments":
        """The moments of no vectors."""
        return cls.of(torch.empty(0, dim))

    def packed(self) -> Tensor:
        """All numbers in one vector, float64 [1 + D + D^2], for sending to another process."""
        count = torch.tensor([self.count], dtype=torch.float64)
        return torch.cat([count, self.mean, self.scatter.flatten()])

    @classmethod
    def unpacked(cls, packed: Tensor) -> "Moments":
        """The inverse of `packed`."""
        dim = math.isqrt(len(packed) - 1)  # D^2 + D lies between D^2 and (D + 1)^2
        return cls(int(packed[0]), packed[1 : 1 + dim], packed[1 + dim :].view(dim, dim))

    def __add__(self, other: "Moments") -> "Moments":
        return self._with(other, 1)

    def __sub__(self, other: "Moments") -> "Moments":
        """Remove vectors that are included: the inverse of +."""
        return self._with(other, -1)

    def _with(self, other: "Moments", sign: int) -> "Moments":
        count = self.count + sign * other.count
        if count == 0:
            return Moments(0, torch.zeros_like(self.mean), torch.zeros_like(self.scatter))
        apart = other.mean - self.mean
        mean = self.mean + sign * apart * (other.count / count)
        between = sign * self.count * other.count / count
        scatter = self.scatter.add(other.scatter, alpha=sign).addr_(apart, apart, alpha=between)
        return Moments(count, mean, scatter)

    def gaussian(self) -> Gaussian:
        """Mean and unbiased covariance, scatter / (count - 1).

        Raises:
            UserError: fewer than 2 vectors, or NaN among them.
        """
        if self.count < 2:
            raise UserError(f"a covariance needs at least 2 images, not {self.count}")
        if not self.mean.isfinite().all():
            raise UserError("the features are not finite: images and weights must not contain NaN")
        return Gaussian(self.mean, self.scatter / (self.count - 1), self.count)


def psd_root(covariance: Tensor) -> Tensor:
    """The symmetric square root of a covariance; negative eigenvalues are due to rounding and set to zero."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def frechet_distance(a: Gaussian, b: Gaussian, root_of_b: Tensor | None = None) -> float:
    """Squared Fréchet distance |mu_a - mu_b|^2 + tr(A + B - 2 (A B)^(1/2)) (Dowson and Landau 1982; FID, Heusel et al.
    2017), at least 0.

    tr (A B)^(1/2) is the sum of the square roots of the eigenvalues of B^(1/2) A B^(1/2): two symmetric
    eigendecompositions, which also work for singular covariances.

    Args:
        a, b: Gaussians of the same dimension.
        root_of_b: `psd_root(b.covariance)` if already computed, to compare many Gaussians with one.

    Raises:
        UserError: different dimensions.
    """
    if a.dim != b.dim:
        raise UserError(f"statistics must have the same number of dimensions, not {a.dim} and {b.dim}")
    root = psd_root(b.covariance) if root_of_b is None else root_of_b
    product = root @ a.covariance @ root
    eigenvalues = torch.linalg.eigvalsh((product + product.T) / 2)
    trace = a.covariance.trace() + b.covariance.trace() - 2 * eigenvalues.clamp(min=0).sqrt().sum()
    return max(float((a.mean - b.mean).square().sum() + trace), 0.0)
