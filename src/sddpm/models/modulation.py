"""The learned scales of temporal modulation (TSM; SDM, arXiv 2408.16467), by layer."""

from torch import nn

from sddpm.models.layers import ModulatedStepConv2d


def modulation_scales(model: nn.Module) -> dict[str, nn.Parameter]:
    """{name of the convolution: its p, [T]}, in the order of the network; empty without temporal modulation."""
    return {name: layer.p for name, layer in model.named_modules() if isinstance(layer, ModulatedStepConv2d)}
