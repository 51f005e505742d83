"""A penalty on firing rates: the energy of a spiking network is proportional to its spikes."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sddpm.errors import UserError
from sddpm.models.thresholds import match_layers, spiking_neurons


@dataclass
class Rates:
    """mean: {layer: its firing rate in spikes per neuron and SNN time step, [] with gradient}; size: {layer:
    neurons}."""

    mean: dict[str, Tensor] = field(default_factory=dict)
    size: dict[str, int] = field(default_factory=dict)

    def overall(self) -> Tensor:
        """Mean firing rate over the neurons of all layers, [] without gradient."""
        spikes = torch.stack([self.mean[name].detach() * size for name, size in self.size.items()]).sum()
        return spikes / sum(self.size.values())

    def penalty(self, targets: Mapping[str, float]) -> Tensor:
        """Mean over the layers in `targets` of max(0, rate - target)^2, []."""
        excess = torch.stack([self.mean[name] - target for name, target in targets.items()])
        return excess.clamp(min=0).square().mean()


@contextmanager
def record_rates(model: nn.Module) -> Iterator[Rates]:
    """The firing rates of the forward pass inside the block."""
    rates = Rates()

    def remember(name: str):
        def hook(_neuron: nn.Module, _inputs: tuple[Tensor, ...], spikes: Tensor) -> None:
            rates.mean[name], rates.size[name] = spikes.mean(dtype=torch.float32), spikes[0].numel()

        return hook

    with ExitStack() as stack:
        for name, neuron in spiking_neurons(model).items():
            stack.callback(neuron.register_forward_hook(remember(name)).remove)
        yield rates


def rate_targets(model: nn.Module, target: float | Mapping[str, float]) -> dict[str, float]:
    """{layer: target rate} from `target`, which is one number for all layers or {layer name pattern: rate}.

    Raises:
        UserError: a pattern that no layer matches, or a model without spiking neurons.
    """
    names = list(spiking_neurons(model))
    if not names:
        raise UserError("train.rate_penalty was given, but this model has no spiking neurons")
    return match_layers(names, target if isinstance(target, Mapping) else {"*": target})
