"""Checks whether a model can be compiled, and whether it has changed since."""

import torch
from torch import nn
from torch.nn.modules import module as torch_module

from sddpm.models.batch_norm import StepBatchNorm2d
from sddpm.models.blocks import (
    PureSpikingResBlock,
    SpikingDownsample,
    SpikingEncoder,
    SpikingResBlock,
    SpikingUpsample,
)
from sddpm.models.embeddings import ClassEmbedding, TimeEmbedding
from sddpm.models.input_skip import InputSkip
from sddpm.models.layers import ModulatedStepConv2d, StepConv2d
from sddpm.models.level import Level, Levels
from sddpm.models.readout import PureSpikingReadout, SpikingReadout
from sddpm.models.unet import SpikingUNet2DModel
from sddpm.neurons import SpikingNeuron
from sddpm.neurons.modules import listened_to

DTYPES = {"exact": (torch.float32, torch.float64), "fast": (torch.float32,)}
DEVICES = ("cpu", "cuda")
KNOWN = {
    *(SpikingUNet2DModel, TimeEmbedding, ClassEmbedding, Level, SpikingEncoder, SpikingResBlock, PureSpikingResBlock),
    *(SpikingDownsample, SpikingUpsample, SpikingReadout, PureSpikingReadout, SpikingNeuron, InputSkip),
    *(StepConv2d, ModulatedStepConv2d, StepBatchNorm2d),
    *(Levels, nn.ModuleList, nn.Sequential, nn.Linear, nn.SiLU, nn.Identity),
}


def unsupported(unet: nn.Module, mode: str) -> str | None:
    """Why `unet` cannot be compiled in this mode, in a few words, or None if it can."""
    if type(unet) is not SpikingUNet2DModel:
        return f"{type(unet).__name__} is not a SpikingUNet2DModel"
    if unet.config["dims"] != 2:
        return "it is for signals of one dimension"
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return "all modules have a forward hook"
    if unet.config["synaptic_currents"]:
        return "it denoises synaptic currents"
    if any(neuron.dynamics.signed for neuron in unet.neurons().values()):
        return "its spikes are signed"
    for name, module in unet.named_modules():
        if type(module) not in KNOWN:
            return f"{name} is a {type(module).__name__}"
        if listened_to(module):
            return f"{name or 'the model'} has a forward hook"
    found = {(parameter.dtype, parameter.device) for parameter in unet.parameters()}
    if len(found) > 1:
        return "its weights have several dtypes or devices"
    if any(parameter.is_inference() for parameter in unet.parameters()):
        return "its weights were made in inference mode, which keeps no record of changes"
    dtype, device = found.pop()
    if dtype not in DTYPES[mode]:
        return f"its weights are {dtype}"
    if device.type not in DEVICES:
        return f"it is on {device.type}"
    return None


class Snapshot:
    """The current layers, weights and buffers of a model. Changes are detected by address and version.

    The tensors are kept, so that no other tensor can get their address. A change through `.data` is not detected.
    """

    def __init__(self, unet: nn.Module):
        # Traversing a model takes several times as long as a loop over a list of its dictionaries.
        self._layers = [(m.__dict__, m._parameters, m._buffers, m._modules) for m in unet.modules()]
        self._hooks = [hooks for m in unet.modules() for hooks in (m._forward_hooks, m._forward_pre_hooks)]
        self._hooks += [torch_module._global_forward_hooks, torch_module._global_forward_pre_hooks]
        self._children = [tuple(m._modules.values()) for m in unet.modules()]
        self._held = [tensor.detach() for tensor in (*unet.parameters(), *unet.buffers())]
        self._state = self._now()

    def holds(self) -> bool:
        """Whether the model is unchanged and has no hooks."""
        if any(self._hooks) or self._state != self._now():
            return False
        return all(
            "forward" not in own and tuple(modules.values()) == children
            for (own, _, _, modules), children in zip(self._layers, self._children, strict=True)
        )

    def _now(self) -> list[int]:
        return [
            number
            for _, parameters, buffers, _ in self._layers
            for tensor in (*parameters.values(), *buffers.values())
            if tensor is not None
            for number in (tensor.data_ptr(), tensor._version)
        ]
