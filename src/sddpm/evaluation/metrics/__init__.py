"""Metrics by name: `METRICS`. A metric is a function of features. To add one, write a function and register it with
`register_metric`."""

from sddpm.evaluation.metrics.distances import Distance
from sddpm.evaluation.metrics.frechet import frechet
from sddpm.evaluation.metrics.inception_score import inception_score
from sddpm.evaluation.metrics.kid import kid
from sddpm.evaluation.metrics.precision_recall import precision, recall
from sddpm.evaluation.metrics.registry import METRICS, Metric, find_metrics, register_metric
from sddpm.evaluation.metrics.score import Counts, Features, Score

__all__ = [
    "METRICS",
    "Counts",
    "Distance",
    "Features",
    "Metric",
    "Score",
    "find_metrics",
    "frechet",
    "inception_score",
    "kid",
    "precision",
    "recall",
    "register_metric",
]
