"""Bayesian search: a Gaussian process of the values seen so far, and expected improvement to say what to try next."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from sddpm.guidance.search import Objective
from sddpm.guidance.space import Point

LENGTHS = np.geomspace(0.05, 3.0, 18)  # in units of the searched range
NOISES = np.geomspace(1e-6, 0.3, 10)  # of the values' roughness, as a share of their variance


@dataclass(frozen=True)
class GaussianProcess:
    """Zero mean, covariance `scale` * Matern-5/2(distance / `length`), noise variance `scale` * `noise`, seen at x."""

    x: np.ndarray
    y: np.ndarray
    length: float
    noise: float
    scale: float = 1.0

    def posterior(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of the function (without noise) at [M, D]: Rasmussen and Williams 2006, algorithm 2.1."""
        lower = self._cholesky()
        across = matern52(self.x, points, self.length)
        weights = np.linalg.solve(lower.T, np.linalg.solve(lower, self.y))
        v = np.linalg.solve(lower, across)
        return across.T @ weights, self.scale * (1 - np.square(v).sum(0)).clip(min=0)

    def log_likelihood(self) -> float:
        """Log marginal likelihood of y (ibid., eq. 2.30)."""
        lower = self._cholesky()
        z = np.linalg.solve(lower, self.y)
        count = len(self.y)
        logdet = 2 * np.log(np.diag(lower)).sum() + count * math.log(self.scale)
        return float(-0.5 * (z @ z / self.scale + logdet + count * math.log(2 * math.pi)))

    def _cholesky(self) -> np.ndarray:
        return np.linalg.cholesky(matern52(self.x, self.x, self.length) + self.noise * np.eye(len(self.x)))


def matern52(a: np.ndarray, b: np.ndarray, length: float) -> np.ndarray:
    """Matern kernel of smoothness 5/2 (ibid., eq. 4.17) between [N, D] and [M, D], 1 at distance 0."""
    r = math.sqrt(5) / length * np.linalg.norm(a[:, None] - b[None], axis=2)
    return (1 + r + r**2 / 3) * np.exp(-r)


def fit(x: np.ndarray, y: np.ndarray) -> GaussianProcess:
    """The most likely length and noise of a small grid, with the scale that is most likely given them."""

    def with_scale(length: float, noise: float) -> GaussianProcess:
        unit = GaussianProcess(x, y, length, noise)
        z = np.linalg.solve(unit._cholesky(), y)
        return GaussianProcess(x, y, length, noise, max(float(z @ z) / len(y), 1e-12))

    return max((with_scale(length, noise) for length in LENGTHS for noise in NOISES), key=lambda p: p.log_likelihood())


def expected_improvement(mean: np.ndarray, variance: np.ndarray, best: float) -> np.ndarray:
    """E max(best - f, 0) for f ~ N(mean, variance) (Jones, Schonlau, Welch 1998, eq. 15)."""
    std = np.sqrt(variance)
    z = np.divide(best - mean, std, out=np.zeros_like(mean), where=std > 0)
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    cumulative = 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2)))
    return np.where(std > 0, (best - mean) * cumulative + std * density, np.maximum(best - mean, 0))


def bayes_search(objective: Objective, start: Point, low: float, high: float, seed: int = 0) -> None:
    """After `start` and twice as many Sobol points as there are axes, always the point of largest expected improvement,
    until the budget is spent. All axes run from `low` to `high`."""
    axes = len(start)
    draw = torch.quasirandom.SobolEngine(axes, scramble=True, seed=seed).draw
    rng = np.random.default_rng(seed)
    objective(start)
    for u in draw(2 * axes).double().numpy():
        objective(_point(u, low, high))
    while True:
        x = (np.array(list(objective.values)) - low) / (high - low)
        y = np.array(list(objective.values.values()))
        process = fit(x, (y - y.mean()) / (y.std() or 1.0))
        incumbent = x[y.argmin()]
        near = [incumbent + rng.normal(0, width, (256, axes)) for width in (0.1, 0.03, 0.01)]
        candidates = np.concatenate([draw(1024).double().numpy(), *near]).clip(0, 1)
        # The lowest mean at a point seen, not the lowest value: a lucky one should not stop the search.
        best = float(process.posterior(x)[0].min())
        gain = expected_improvement(*process.posterior(candidates), best)
        ranked = [_point(candidates[i], low, high) for i in np.argsort(-gain, kind="stable")]
        objective(next((point for point in ranked if point not in objective.values), ranked[0]))


def _point(u: np.ndarray, low: float, high: float) -> Point:
    return tuple(round(float(low + x * (high - low)), 5) for x in u)
