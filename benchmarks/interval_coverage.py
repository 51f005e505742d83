"""How often the 95 % interval of each metric contains the true value, on data with known true values.

    python benchmarks/interval_coverage.py [--draws 1000] [--samples 200]

Every draw makes new samples, measures them with an interval, and checks whether it contains the metric's expectation
for this number of samples: a closed form, or for recall, which has none, the mean over all draws.
"""

import argparse
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import gammaln
from scipy.stats import binom

from sddpm.evaluation.metrics import Features, Score, frechet, inception_score, kid, precision, recall

Case = tuple[Callable[[np.random.Generator], Score], float | None]


def features(rows: Any) -> Features:
    return Features("test", rows.astype(np.float32))


def frechet_case(n: int, dim: int = 1) -> Case:
    """Samples N(0, 1) against N(1/2, 1) in one dimension, where the estimate's bias has a closed form."""
    grid = np.random.default_rng(99).normal(size=(100_000, dim))
    target = features((grid - grid.mean(0)) / grid.std(0, ddof=1) + 0.5)
    c4 = math.sqrt(2 / (n - 1)) * math.exp(gammaln(n / 2) - gammaln((n - 1) / 2))  # E of a standard deviation
    known = Features("test", None, target.gaussian)
    truth = 0.25 + 1 / n + 2 - 2 * c4
    return lambda rng: frechet(features(rng.normal(size=(n, 1))), known, interval=True), truth


def wide_frechet_case(n: int, dim: int = 16) -> Case:
    """Samples N(0, I) against N(0, I) in 16 dimensions: the result is only the bias of few samples."""
    known = Features("test", None, features(np.random.default_rng(98).normal(size=(200_000, dim))).gaussian)
    return lambda rng: frechet(features(rng.normal(size=(n, dim))), known, interval=True), None


def kid_case(n: int, subsets: int = 1, size: int | None = None, dim: int = 4) -> Case:
    """Samples N(0, I) against as many fixed vectors as a subset has (so that all take part in every one):
    E k(x, x') = 1 + 3/D and E k(x, y) = 1 + 3 |y|^2 / D^2."""
    size = n if size is None else size
    y = (np.random.default_rng(97).normal(size=(size, dim)) + 0.3).astype(np.float32)
    kernel = (y.astype(float) @ y.T / dim + 1) ** 3
    among = (kernel.sum() - np.trace(kernel)) / (size * (size - 1))
    truth = 1 + 3 / dim + among - 2 * (1 + 3 * (y.astype(float) ** 2).sum(1).mean() / dim**2)

    def draw(rng: np.random.Generator) -> Score:
        samples = features(rng.normal(size=(n, dim)))
        return kid(samples, features(y), subsets=subsets, subset_size=size, interval=True)

    return draw, float(truth)


def precision_case(n: int) -> Case:
    """Samples evenly over [0, 1] against a grid of 40 on [0, 0.6], whose balls (k = 3) extend three steps further."""
    grid = np.linspace(0, 0.6, 40)[:, None]
    reference = features(grid)
    return lambda rng: precision(features(rng.uniform(size=(n, 1))), reference, interval=True), 0.6 + 3 * 0.6 / 39


def recall_case(n: int, dim: int = 3) -> Case:
    """Samples N(0, I) against 300 fixed vectors that are more spread."""
    reference = features(np.random.default_rng(96).normal(size=(300, dim)) * 1.5)
    return lambda rng: recall(features(rng.normal(size=(n, dim))), reference, interval=True), None


def inception_score_case(n: int, splits: int = 10, share: float = 0.3) -> Case:
    """Two classes with certain predictions: a split's score is exp of the entropy of its binomially drawn shares."""
    size = n // splits
    k = np.arange(size + 1)
    p = np.clip(k / size, 1e-300, 1)
    entropy = -(p * np.log(p) + (1 - p) * np.log(np.clip(1 - p, 1e-300, 1)))
    truth = float((binom.pmf(k, size, share) * np.exp(entropy)).sum())

    def draw(rng: np.random.Generator) -> Score:
        first = rng.uniform(size=(n, 1)) < share
        logits = np.where(np.concatenate([first, ~first], 1), 100.0, 0.0)
        return inception_score(features(logits), splits=splits, interval=True)

    return draw, truth


CASES: dict[str, Callable[[int], Case]] = {
    "fid, sfid, fad: one dimension": frechet_case,
    "fid, sfid, fad: 16 dimensions": wide_frechet_case,
    "kid": kid_case,
    "kid in 20 subsets of half the samples": lambda n: kid_case(n, 20, n // 2),
    "is": inception_score_case,
    "precision": precision_case,
    "recall": recall_case,
}


def coverage(case: Case, draws: int, seed: int = 0) -> tuple[float, float, float]:
    """The share of intervals that contain the true value; the mean standard error relative to the true one; the
    deviation of the values' mean from the true value, in its own standard errors."""
    draw, truth = case
    scores = [draw(np.random.default_rng([seed, i])) for i in range(draws)]
    values = np.array([score.value for score in scores])
    bounds = np.array([score.interval for score in scores])
    errors = np.array([score.standard_error for score in scores])
    spread = values.std(ddof=1)
    truth = float(values.mean()) if truth is None else truth
    held = ((bounds[:, 0] <= truth) & (truth <= bounds[:, 1])).mean()
    return float(held), float(errors.mean() / spread), float((values.mean() - truth) / spread * draws**0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=200)
    arguments = parser.parse_args()
    for name, make in CASES.items():
        held, errors, apart = coverage(make(arguments.samples), arguments.draws)
        print(
            f"{name}: {held:.1%} of the intervals contain the true value; the standard error is {errors:.2f} times the"
            f" spread of the values, whose mean is {apart:+.1f} standard errors from the true value",
            flush=True,
        )


if __name__ == "__main__":
    main()
