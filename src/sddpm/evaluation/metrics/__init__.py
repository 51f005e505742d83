"""Metrics by name: `METRICS`. A metric is a function of features; adding one is one function and one `register`."""

from sddpm.evaluation.metrics.frechet import frechet
from sddpm.evaluation.metrics.inception_score import inception_score
from sddpm.evaluation.metrics.kid import kid
from sddpm.evaluation.metrics.precision_recall import precision, recall
from sddpm.evaluation.metrics.registry import METRICS, Metric, find_metrics
from sddpm.evaluation.metrics.score import Features, Score

__all__ = [
    "METRICS",
    "Features",
    "Metric",
    "Score",
    "find_metrics",
    "frechet",
    "inception_score",
    "kid",
    "precision",
    "recall",
]
