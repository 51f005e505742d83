"""From a network with quantised ReLUs to spikes (Bu et al., ICLR 2022, arXiv 2303.04347; Hu et al., Fast-SNN, 2023,
arXiv 2305.19868; for diffusion models SDM, arXiv 2408.16467, section 6).

A quantised ReLU with the step s and L levels becomes IF neurons with threshold s, initial membrane s/2, soft reset and
T = L time steps. Spikes are 1; the height s that they represent is folded into the weights of the convolutions that
receive them. The readout is the mean over T; its factor 1/T is folded into the last convolution.

Everything between two layers of neurons is linear (including batch norm in evaluation mode). So the mean current over T
equals the activation's input if the mean of the spikes equals the activation. This holds for the first layer, whose
current is constant. In later layers, late or early spikes make some neurons fire once too little or too often.
"""

from typing import Any

import torch

from sddpm.errors import UserError
from sddpm.models import SpikingUNet2DModel
from sddpm.models.blocks import SpikingDownsample, SpikingEncoder, SpikingResBlock, SpikingUpsample
from sddpm.models.layers import StepConv2d
from sddpm.models.readout import PureSpikingReadout
from sddpm.neurons import QuantizedReLU

SURROGATE = {"surrogate": "atan", "surrogate_alpha": 1.0}  # for fine-tuning; learned steps s are around 2


def quantized_layers(model: torch.nn.Module) -> dict[str, QuantizedReLU]:
    """The quantised activations of a model by name, in the order of the network."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, QuantizedReLU)}


def convert_ann(model: Any, *, T: int | None = None, signed: bool = False) -> SpikingUNet2DModel:
    """The spiking network of a `SpikingUNet2DModel` with neuron "quantized_relu", in evaluation mode.

    Every tensor keeps its name; the steps s become the thresholds in the configuration.

    Args:
        model: a trained model with final batch-norm statistics; it is not changed.
        T: SNN time steps; None for the number of activation levels above 0. With another number a neuron has other
            levels, between the same 0 and s.
        signed: whether neurons can also emit -1, to cancel a surplus spike.

    Raises:
        UserError: a model without quantised activations, or with layers that cannot be converted.
    """
    layers = quantized_layers(model)
    steps = {name: layer.step.item() for name, layer in layers.items()}
    if not steps:
        raise UserError(
            f"this {type(model).__name__} has no quantised activations to convert: train one with model.kind=quantized "
            "(sddpm train fashion_mnist_small_quantized)"
        )
    behind = receivers(model)
    if strange := [name for name in steps if name not in behind]:
        raise UserError(
            f"the activations {', '.join(strange)} cannot be converted: each must be followed by convolutions"
        )
    T = next(iter(layers.values())).levels if T is None else T
    config = {key: value for key, value in model.config.items() if not key.startswith("_")}
    config |= {"T": T, "neuron": "if", "v_reset": None, "initial_charge": 0.5, "signed_spikes": signed}
    spiking = SpikingUNet2DModel(**{**config, **SURROGATE, "v_threshold": steps, "readout_decay": 1.0})
    weights = {name: value.clone() for name, value in model.state_dict().items() if not name.endswith(".log_step")}
    for name, convolutions in behind.items():
        for conv in convolutions:
            weights[f"{conv}.weight"] *= steps[name]
    weights["readout.conv.weight"] /= T
    weights["readout.conv.bias"] /= T
    spiking.load_state_dict(weights, assign=True)  # on the device and in the dtype of the model
    return spiking.eval()


def receivers(model: torch.nn.Module) -> dict[str, list[str]]:
    """{layer of neurons: the convolutions that receive its spikes}, by name."""
    found: dict[str, list[str]] = {}
    for name, module in model.named_modules():
        match module:
            case SpikingEncoder():
                found[f"{name}.neuron"] = [f"{name}.conv2"]
            case SpikingResBlock():
                shortcut = [f"{name}.shortcut"] if isinstance(module.shortcut, StepConv2d) else []
                found[f"{name}.neuron1"] = [f"{name}.conv1", *shortcut]
                found[f"{name}.neuron2"] = [f"{name}.conv2"]
            case SpikingDownsample() | SpikingUpsample() | PureSpikingReadout():
                found[f"{name}.neuron"] = [f"{name}.conv"]
    return found
