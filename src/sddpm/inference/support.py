"""What can be compiled, and whether it is still what was compiled."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from sddpm.models.batch_norm import StepBatchNorm2d
from sddpm.models.blocks import (
    PureSpikingResBlock,
    SpikingDownsample,
    SpikingEncoder,
    SpikingResBlock,
    SpikingUpsample,
)
from sddpm.models.embeddings import TimeEmbedding
from sddpm.models.layers import ModulatedStepConv2d, StepConv2d
from sddpm.models.readout import PureSpikingReadout, SpikingReadout
from sddpm.models.unet import Level, SpikingUNet2DModel
from sddpm.neurons import SpikingNeuron

DTYPES = {"exact": (torch.float32, torch.float64), "fast": (torch.float32,)}
DEVICES = ("cpu", "cuda")
KNOWN = {
    *(SpikingUNet2DModel, TimeEmbedding, Level, SpikingEncoder, SpikingResBlock, PureSpikingResBlock),
    *(SpikingDownsample, SpikingUpsample, SpikingReadout, PureSpikingReadout, SpikingNeuron),
    *(StepConv2d, ModulatedStepConv2d, StepBatchNorm2d),
    *(nn.ModuleList, nn.Sequential, nn.Linear, nn.SiLU, nn.Identity),
}


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)


def unsupported(unet: nn.Module, mode: str) -> str | None:
    """Why `unet` cannot be compiled in that mode, in a few words, or None if it can."""
    if type(unet) is not SpikingUNet2DModel:
        return f"{type(unet).__name__} is not a SpikingUNet2DModel"
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return "all modules have a forward hook"
    for name, module in unet.named_modules():
        if type(module) not in KNOWN:
            return f"{name} is a {type(module).__name__}"
        if _hooked(module):
            return f"{name or 'the model'} has a forward hook"
    found = {(parameter.dtype, parameter.device) for parameter in unet.parameters()}
    if len(found) > 1:
        return "its weights have several types or devices"
    dtype, device = found.pop()
    if dtype not in DTYPES[mode]:
        return f"its weights are {dtype}"
    if device.type not in DEVICES:
        return f"it is on {device.type}"
    return None


@dataclass(frozen=True)
class Snapshot:
    """The weights, buffers and layers of a model at one time, told apart by address and version.

    The tensors are held, so that no other can come to lie at their address. A change through `.data` is not seen.
    """

    held: list[Tensor]
    state: list[int]


def snapshot(unet: nn.Module) -> Snapshot:
    held: list[Tensor] = []
    _collect(unet, held)
    return Snapshot([tensor.detach() for tensor in held], _versions(held))


def unchanged(unet: nn.Module, before: Snapshot) -> bool:
    """Whether the model is as it was, and nobody listens to its layers."""
    held: list[Tensor] = []
    quiet = _collect(unet, held)
    return quiet and _versions(held) == before.state


def _collect(module: nn.Module, tensors: list[Tensor]) -> bool:
    """Append the tensors of a module and of those below it; whether none of them has a hook."""
    quiet = not _hooked(module)
    for group in (module._parameters, module._buffers):
        tensors.extend(tensor for tensor in group.values() if tensor is not None)
    for child in module._modules.values():
        if child is not None:
            quiet &= _collect(child, tensors)
    return quiet


def _versions(tensors: list[Tensor]) -> list[int]:
    return [n for x in tensors for n in (x.data_ptr(), 0 if x.is_inference() else x._version)]
