"""Evaluation: feature networks, distances, protocols. Names are imported on first use because torch is slow to load."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sddpm.evaluation.metrics import METRICS as METRICS
    from sddpm.evaluation.metrics import Features as Features
    from sddpm.evaluation.metrics import Score as Score
    from sddpm.evaluation.metrics import register_metric as register_metric
    from sddpm.evaluation.reference_statistics import StatisticsSettings as StatisticsSettings
    from sddpm.evaluation.reference_statistics import build_statistics as build_statistics
    from sddpm.evaluation.run import Evaluation as Evaluation
    from sddpm.evaluation.run import evaluate as evaluate
    from sddpm.evaluation.sampling import SamplingSettings as SamplingSettings
    from sddpm.evaluation.settings import EvaluationSettings as EvaluationSettings
    from sddpm.evaluation.settings import TrainingData as TrainingData
    from sddpm.evaluation.statistics import frechet_distance as frechet_distance
    from sddpm.evaluation.statistics_files import read_statistics as read_statistics
    from sddpm.evaluation.statistics_files import write_statistics as write_statistics

_LAZY = {
    "METRICS": "metrics",
    "Features": "metrics",
    "Score": "metrics",
    "register_metric": "metrics",
    "Evaluation": "run",
    "EvaluationSettings": "settings",
    "SamplingSettings": "sampling",
    "StatisticsSettings": "reference_statistics",
    "TrainingData": "settings",
    "build_statistics": "reference_statistics",
    "evaluate": "run",
    "frechet_distance": "statistics",
    "read_statistics": "statistics_files",
    "write_statistics": "statistics_files",
}
__all__ = [
    "METRICS",
    "Evaluation",
    "EvaluationSettings",
    "Features",
    "SamplingSettings",
    "Score",
    "StatisticsSettings",
    "TrainingData",
    "build_statistics",
    "evaluate",
    "frechet_distance",
    "read_statistics",
    "register_metric",
    "write_statistics",
]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(import_module(f"sddpm.evaluation.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'sddpm.evaluation' has no attribute {name!r}")
