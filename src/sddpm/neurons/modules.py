"""A layer of spiking neurons as a module: it holds the parameters and passes them to the functions."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from sddpm.neurons.definition import Dynamics, State
from sddpm.neurons.functional import multi_step_from
from sddpm.neurons.kernels import multi_step


class SpikingNeuron(nn.Module):
    """Spikes [T, ...] of input currents [T, ...]. Keeps no state between calls, except inside `carried_states`.

    `v_threshold` is a plain number that may be changed after training. The learned parameters of the neuron (PLIF's
    `w`, which starts where sigmoid(w) = 1/tau) are parameters of this module, under their names.
    """

    w: nn.Parameter | None
    carries: bool = False
    state: State | None = None

    def __init__(self, dynamics: Dynamics, v_threshold: float = 1.0):
        super().__init__()
        self.dynamics = dynamics
        self.v_threshold = float(v_threshold)
        self.register_parameter("w", None)  # kernels look for PLIF's
        for name, first in dynamics.definition.parameters.items():
            self.register_parameter(name, nn.Parameter(torch.tensor(float(first(dynamics)))))

    @property
    def learned(self) -> dict[str, Tensor]:
        """The learned parameters of this layer, as keywords for `multi_step`."""
        return {name: getattr(self, name) for name in self.dynamics.definition.parameters}

    def forward(self, x: Tensor) -> Tensor:
        if not self.carries:
            return multi_step(x, self.dynamics, v_threshold=self.v_threshold, **self.learned)
        numbers = {"v_threshold": self.v_threshold, **self.learned}
        spikes, self.state = multi_step_from(self.state, x, self.dynamics, **numbers)
        return spikes

    def extra_repr(self) -> str:
        return f"{self.dynamics.neuron}, v_threshold={self.v_threshold:g}"


@contextmanager
def carried_states(neurons: Iterable[SpikingNeuron]) -> Iterator[None]:
    """Inside the block each layer continues from the `state` of its previous call; afterwards all states are
    deleted."""
    neurons = list(neurons)
    try:
        for neuron in neurons:
            neuron.carries = True
        yield
    finally:
        for neuron in neurons:
            neuron.carries, neuron.state = False, None


def listened_to(module: nn.Module) -> bool:
    """Whether this module has a forward hook, or a replaced forward (as offloading to another device installs), that
    must be called."""
    everywhere = (torch_module._global_forward_hooks, torch_module._global_forward_pre_hooks)
    return any((module._forward_hooks, module._forward_pre_hooks, *everywhere)) or "forward" in module.__dict__


def watched(module: nn.Module) -> bool:
    """Whether this module has forward or backward hooks: then no kernel may replace its call."""
    return listened_to(module) or any((module._backward_hooks, module._backward_pre_hooks))


def replaceable(neuron: nn.Module) -> bool:
    """Whether a layer of neurons does what `multi_step` does and nothing else, so that a kernel may do it instead."""
    return type(neuron) is SpikingNeuron and not neuron.carries and not watched(neuron)
