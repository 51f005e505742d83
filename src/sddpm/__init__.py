"""Spiking diffusion models: SDDPM (Cao et al., WACV 2024) and the family around it."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sddpm.data import open_dataset as open_dataset
    from sddpm.data import register_dataset as register_dataset
    from sddpm.diffusion.density import register_density as register_density
    from sddpm.diffusion.solver_registry import register_solver as register_solver
    from sddpm.energy import measure_sampling as measure_sampling
    from sddpm.errors import UserError as UserError
    from sddpm.evaluation import EvaluationSettings as EvaluationSettings
    from sddpm.evaluation import SamplingSettings as SamplingSettings
    from sddpm.evaluation import evaluate as evaluate
    from sddpm.evaluation import register_metric as register_metric
    from sddpm.guidance import GuidanceSettings as GuidanceSettings
    from sddpm.guidance import guide as guide
    from sddpm.models import SpikingUNet2DModel as SpikingUNet2DModel
    from sddpm.neurons import register_neuron as register_neuron
    from sddpm.neurons import register_surrogate as register_surrogate
    from sddpm.pipelines import SamplingOptions as SamplingOptions
    from sddpm.pipelines import SpikingDiffusionPipeline as SpikingDiffusionPipeline
    from sddpm.pipelines import load_pipeline as load_pipeline
    from sddpm.training import load_config as load_config
    from sddpm.training import train as train

try:
    __version__ = version("sddpm")
except PackageNotFoundError:  # a source tree on PYTHONPATH that is not installed
    __version__ = "0.0.0"

# Names are imported on first use, so that `sddpm --help` does not wait for torch.
_LAZY = {
    "EvaluationSettings": "sddpm.evaluation",
    "GuidanceSettings": "sddpm.guidance",
    "SamplingOptions": "sddpm.pipelines",
    "SamplingSettings": "sddpm.evaluation",
    "SpikingDiffusionPipeline": "sddpm.pipelines",
    "SpikingUNet2DModel": "sddpm.models",
    "UserError": "sddpm.errors",
    "evaluate": "sddpm.evaluation",
    "guide": "sddpm.guidance",
    "load_config": "sddpm.training",
    "load_pipeline": "sddpm.pipelines",
    "measure_sampling": "sddpm.energy",
    "open_dataset": "sddpm.data",
    "register_dataset": "sddpm.data",
    "register_density": "sddpm.diffusion.density",
    "register_metric": "sddpm.evaluation",
    "register_neuron": "sddpm.neurons",
    "register_solver": "sddpm.diffusion.solver_registry",
    "register_surrogate": "sddpm.neurons",
    "train": "sddpm.training",
}
__all__ = [
    "EvaluationSettings",
    "GuidanceSettings",
    "SamplingOptions",
    "SamplingSettings",
    "SpikingDiffusionPipeline",
    "SpikingUNet2DModel",
    "UserError",
    "__version__",
    "evaluate",
    "guide",
    "load_config",
    "load_pipeline",
    "measure_sampling",
    "open_dataset",
    "register_dataset",
    "register_density",
    "register_metric",
    "register_neuron",
    "register_solver",
    "register_surrogate",
    "train",
]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'sddpm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
