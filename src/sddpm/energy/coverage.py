"""Operations outside layers: multiplications between activations, such as those of attention without spikes."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sddpm.models.attention import SpikeProduct
from sddpm.models.config import sample_shape


def macs_outside_layers(model: nn.Module) -> int:
    """Multiply-accumulates of one evaluation of one image, over all T, that are not in any convolution, linear layer or
    product of spikes.

    The total is from PyTorch's FLOP counter. Runs on the meta device: no arithmetic, no memory.
    """
    config: Any = model.config
    ghost = copy.deepcopy(model).to("meta").eval()
    dtype = next(ghost.parameters()).dtype
    sample = torch.zeros(1, *sample_shape(config), dtype=dtype, device="meta")
    in_layers = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal in_layers
        in_layers += layer.weight[0].numel() * out[0].numel() * inputs[0].shape[0]  # type: ignore[index,operator]

    def count_product(product: SpikeProduct, _inputs: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal in_layers
        in_layers += product.macs(out.shape[2], out[0, 0, 0].numel()) * len(out)

    for layer in ghost.modules():
        layer._forward_hooks.clear()  # hooks of users on the model itself
        layer._forward_pre_hooks.clear()
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
        elif isinstance(layer, SpikeProduct):
            layer.register_forward_hook(count_product)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        ghost(sample, torch.zeros(1, dtype=torch.long, device="meta"))
    return counter.get_total_flops() // 2 - in_layers
