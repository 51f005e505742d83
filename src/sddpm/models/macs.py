"""Multiply-accumulates of one evaluation, layer by layer, from shapes alone."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sddpm.models.attention import SpikeProduct
from sddpm.models.config import sample_shape
from sddpm.models.input_skip import InputSkip


def layer_macs(model: nn.Module) -> dict[str, int]:
    """{layer name: dense MACs for one image} of every convolution, linear layer and product, per SNN time step.

    Layers that have no time axis (the time embedding and its projections) count once, as does the first convolution,
    which is evaluated once for all T. Runs the model on the meta device: no arithmetic, no memory.
    """
    config: Mapping = model.config  # type: ignore[assignment]
    ghost = copy.deepcopy(model).to("meta").eval()
    macs: dict[str, int] = {}

    def count(name: str):
        def hook(layer: nn.Module, _inputs: tuple[Tensor, ...], out: Tensor) -> None:
            fan_in = layer.weight[0].numel()  # type: ignore[index,operator]
            # Positions per image and time step: [T, B, C, H, W] or [B, C], here with B = 1.
            macs[name] = fan_in * out[0].numel()

        return hook

    def count_product(name: str):
        def hook(product: SpikeProduct, _inputs: tuple[Tensor, ...], out: Tensor) -> None:
            macs[name] = product.macs(out.shape[2], out[0, 0, 0].numel())

        return hook

    def count_skip(name: str):
        def hook(_skip: InputSkip, _inputs: tuple[Tensor, ...], out: Tensor) -> None:
            macs[name] = out[0].numel()

        return hook

    for name, layer in ghost.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count(name))
        elif isinstance(layer, SpikeProduct):
            layer.register_forward_hook(count_product(name))
        elif isinstance(layer, InputSkip):
            layer.register_forward_hook(count_skip(name))
    sample = torch.zeros(1, *sample_shape(config), device="meta")
    with torch.no_grad():
        ghost(sample, torch.zeros(1, dtype=torch.long, device="meta"))
    return macs
