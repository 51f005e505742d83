"""Spiking diffusion models: SDDPM (Cao et al., WACV 2024) and the family around it."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sddpm.data import open_dataset as open_dataset
    from sddpm.data import register_dataset as register_dataset
    from sddpm.errors import UserError as UserError
    from sddpm.evaluation import register_metric as register_metric
    from sddpm.models import SpikingUNet2DModel as SpikingUNet2DModel
    from sddpm.neurons import register_neuron as register_neuron
    from sddpm.neurons import register_surrogate as register_surrogate
    from sddpm.pipelines import SpikingDiffusionPipeline as SpikingDiffusionPipeline
    from sddpm.pipelines import load_pipeline as load_pipeline

try:
    __version__ = version("sddpm")
except PackageNotFoundError:  # a source tree on PYTHONPATH that was never installed
    __version__ = "0.0.0"

# Names are imported on first use, so that `sddpm --help` does not wait for torch.
_LAZY = {
    "SpikingUNet2DModel": "sddpm.models",
    "SpikingDiffusionPipeline": "sddpm.pipelines",
    "UserError": "sddpm.errors",
    "load_pipeline": "sddpm.pipelines",
    "open_dataset": "sddpm.data",
    "register_dataset": "sddpm.data",
    "register_metric": "sddpm.evaluation",
    "register_neuron": "sddpm.neurons",
    "register_surrogate": "sddpm.neurons",
}
__all__ = [
    "SpikingDiffusionPipeline",
    "SpikingUNet2DModel",
    "UserError",
    "__version__",
    "load_pipeline",
    "open_dataset",
    "register_dataset",
    "register_metric",
    "register_neuron",
    "register_surrogate",
]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'sddpm' has no attribute {name!r}")
