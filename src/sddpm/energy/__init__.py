"""The energy estimate: the cost of every spike. Names are imported on first use because torch is slow to load."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sddpm.energy.activity import Activity as Activity
    from sddpm.energy.activity import recording as recording
    from sddpm.energy.cost import CostModel as CostModel
    from sddpm.energy.cost import Energy as Energy
    from sddpm.energy.cost import cost_model_names as cost_model_names
    from sddpm.energy.cost import energy_of as energy_of
    from sddpm.energy.cost import load_cost_model as load_cost_model
    from sddpm.energy.counts import LayerCount as LayerCount
    from sddpm.energy.ledger import Ledger as Ledger
    from sddpm.energy.measure import measure_images as measure_images
    from sddpm.energy.measure import measure_network as measure_network
    from sddpm.energy.measure import measure_sampling as measure_sampling
    from sddpm.energy.operations import counting as counting
    from sddpm.energy.published import published_ann as published_ann
    from sddpm.energy.published import published_snn as published_snn
    from sddpm.energy.twin import ann_twin as ann_twin

_LAZY = {
    "Activity": "activity",
    "CostModel": "cost",
    "Energy": "cost",
    "LayerCount": "counts",
    "Ledger": "ledger",
    "ann_twin": "twin",
    "cost_model_names": "cost",
    "counting": "operations",
    "energy_of": "cost",
    "load_cost_model": "cost",
    "measure_images": "measure",
    "measure_network": "measure",
    "measure_sampling": "measure",
    "published_ann": "published",
    "published_snn": "published",
    "recording": "activity",
}
__all__ = [
    "Activity",
    "CostModel",
    "Energy",
    "LayerCount",
    "Ledger",
    "ann_twin",
    "cost_model_names",
    "counting",
    "energy_of",
    "load_cost_model",
    "measure_images",
    "measure_network",
    "measure_sampling",
    "published_ann",
    "published_snn",
    "recording",
]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(import_module(f"sddpm.energy.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'sddpm.energy' has no attribute {name!r}")
