"""Activity of neurons beyond their rate: which channels fire, when, and how far membranes are from the threshold."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sddpm.models.thresholds import spiking_neurons
from sddpm.neurons import SpikingNeuron
from sddpm.neurons.functional import steps

RASTER_NEURONS = 60
MEMBRANE_EDGES = torch.linspace(-4.1, 4.1, 83)  # in units of the threshold; the outer bins are open
SATURATED = 0.99


@dataclass
class LayerActivity:
    """One layer of neurons over the whole recording.

    channel_spikes: [C] spikes of each channel. opportunities: the maximum possible number of spikes per channel.
    raster: one bool [N, T] per evaluation, for up to 60 neurons spread over the layer, for the first image.
    membrane: [bins] counts of h[n] / v_threshold, the membrane before firing, for the first image.
    """

    channel_spikes: Tensor
    opportunities: int = 0
    raster: list[Tensor] = field(default_factory=list)
    membrane: Tensor = field(default_factory=lambda: torch.zeros(len(MEMBRANE_EDGES) - 1))

    @property
    def channel_rates(self) -> Tensor:
        """Firing rate of each channel, [C]."""
        return self.channel_spikes / self.opportunities

    @property
    def dead(self) -> int:
        """Number of channels that never fired."""
        return int((self.channel_spikes == 0).sum())

    @property
    def saturated(self) -> int:
        """Number of channels that fired at 99 % of the time steps or more."""
        return int((self.channel_rates >= SATURATED).sum())

    def joined_raster(self) -> Tensor:
        """bool [N, T x evaluations]."""
        return torch.cat(self.raster, dim=1)


@dataclass
class Activity:
    """layers: by name, in the order of the network."""

    layers: dict[str, LayerActivity] = field(default_factory=dict)

    @property
    def silent(self) -> list[str]:
        """Layers without a spike."""
        return [name for name, layer in self.layers.items() if not layer.channel_spikes.any()]


@contextmanager
def recording(model: nn.Module) -> Iterator[Activity]:
    """Record the neurons of `model` in every evaluation inside the block.

    With early exit, membranes and rasters are not recorded, because the network then runs step by step.
    """
    activity = Activity()
    T = model.config["T"] if spiking_neurons(model) else 0  # type: ignore[index]

    def look(name: str):
        def hook(neuron: SpikingNeuron, inputs: tuple[Tensor, ...], spikes: Tensor) -> None:
            channels = spikes.transpose(0, 2).flatten(1)
            layer = activity.layers.setdefault(name, LayerActivity(torch.zeros(len(channels), dtype=torch.float64)))
            layer.channel_spikes += channels.abs().sum(1, dtype=torch.float32).cpu()
            layer.opportunities += channels.shape[1]
            if len(spikes) == T:
                layer.raster.append(_raster(spikes[:, 0]))
                layer.membrane += _membrane(neuron, inputs[0][:, 0])

        return hook

    with ExitStack() as stack:
        for name, neuron in spiking_neurons(model).items():
            stack.callback(neuron.register_forward_hook(look(name)).remove)  # type: ignore[arg-type]
        yield activity


def _raster(spikes: Tensor) -> Tensor:
    """[T, C, H, W] of one image -> bool [N, T] of neurons evenly spread over the layer."""
    flat = spikes.flatten(1)
    chosen = torch.linspace(0, flat.shape[1] - 1, min(RASTER_NEURONS, flat.shape[1]), device=flat.device).long()
    return (flat[:, chosen] != 0).T.cpu()


def _membrane(neuron: SpikingNeuron, currents: Tensor) -> Tensor:
    """Histogram of h[n] / v_threshold over the T time steps of currents [T, C, H, W]."""
    trace = steps(currents, neuron.dynamics, v_threshold=neuron.v_threshold, **neuron.learned)
    values = [h.flatten() / neuron.v_threshold for _, _, h in trace]
    clamped = torch.cat(values).float().cpu().clamp(-4.05, 4.05)
    return torch.histogram(clamped, MEMBRANE_EDGES).hist
