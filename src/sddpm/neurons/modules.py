"""A layer of spiking neurons as a module: a thin shell that holds parameters and passes them on as arguments."""

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from sddpm.neurons.definition import Dynamics
from sddpm.neurons.kernels import multi_step


class SpikingNeuron(nn.Module):
    """Spikes [T, ...] of input currents [T, ...]. Keeps no membrane between calls.

    `v_threshold` is a plain number that may be changed after training. What the neuron learns (PLIF's `w`, which
    starts where sigmoid(w) = 1/tau) are parameters of this module, by their names.
    """

    w: nn.Parameter | None

    def __init__(self, dynamics: Dynamics, v_threshold: float = 1.0):
        super().__init__()
        self.dynamics = dynamics
        self.v_threshold = float(v_threshold)
        self.register_parameter("w", None)  # kernels look for PLIF's
        for name, first in dynamics.definition.parameters.items():
            self.register_parameter(name, nn.Parameter(torch.tensor(first(dynamics))))

    @property
    def learned(self) -> dict[str, Tensor]:
        """What this layer has learned, as `multi_step` takes it."""
        return {name: getattr(self, name) for name in self.dynamics.definition.parameters}

    def forward(self, x: Tensor) -> Tensor:
        return multi_step(x, self.dynamics, v_threshold=self.v_threshold, **self.learned)

    def extra_repr(self) -> str:
        return f"{self.dynamics.neuron}, v_threshold={self.v_threshold:g}"


def watched(module: nn.Module) -> bool:
    """Whether a hook, or a forward of its own, wants to be called for this module: then nothing may compute in its
    place."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    everywhere = (torch_module._global_forward_hooks, torch_module._global_forward_pre_hooks)
    return any(hooks) or any(everywhere) or "forward" in module.__dict__
