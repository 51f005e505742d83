"""Training: config schema, loop, EMA, checkpoint, resume. Names are imported on first use because torch is slow to
load."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sddpm.training.config import Config as Config
    from sddpm.training.config_files import load_config as load_config
    from sddpm.training.distillation import distill as distill
    from sddpm.training.metrics import read_metrics as read_metrics
    from sddpm.training.run import TrainResult as TrainResult
    from sddpm.training.run import train as train

_LAZY = {
    "Config": "config",
    "TrainResult": "run",
    "distill": "distillation",
    "load_config": "config_files",
    "read_metrics": "metrics",
    "train": "run",
}
__all__ = ["Config", "TrainResult", "distill", "load_config", "read_metrics", "train"]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(import_module(f"sddpm.training.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'sddpm.training' has no attribute {name!r}")
