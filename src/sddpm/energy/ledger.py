"""The account of a model: what its layers did at every diffusion step, and what that costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sddpm.energy.cost import CostModel, Energy, energy_of
from sddpm.energy.counts import LayerCount, NeuronCount, merge


@dataclass(frozen=True)
class Evaluation:
    """All images going through the network once, at one diffusion step.

    index: 0 for the first; t: diffusion step; images: how many (under classifier-free guidance each counts twice: with
    its class and without); layers: what each did, in the order in which they ran.
    """

    index: int
    t: int
    images: int
    layers: tuple[LayerCount, ...]

    @property
    def snn_steps(self) -> float:
        """SNN time steps that an image took on average: T, unless it left early."""
        ran = max(self.layers, key=lambda layer: len(layer.images))
        return sum(ran.images) / self.images


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """What `measure_sampling` and `measure_images` return.

    title: whose account it is. parameters: of the network. spiking: whether it has neurons. T: SNN time steps, 1
    without neurons. inputs: what went through the network, in words. solver: by whose diffusion steps. images: how
    many. evaluations: one a diffusion step.
    """

    title: str
    parameters: int
    spiking: bool
    T: int
    inputs: str
    solver: str
    images: int
    evaluations: tuple[Evaluation, ...]

    @property
    def layers(self) -> tuple[LayerCount, ...]:
        """Every layer over all evaluations."""
        return merge_layers([evaluation.layers for evaluation in self.evaluations])

    @property
    def network_runs(self) -> int:
        """Evaluations times images: divide the layers' totals by it for one evaluation of one image."""
        return sum(evaluation.images for evaluation in self.evaluations)

    @property
    def evaluations_per_sample(self) -> int:
        """How often the network runs for one sample: once a diffusion step, or twice under classifier-free guidance."""
        return self.network_runs // self.images

    @property
    def snn_steps(self) -> float:
        """SNN time steps that an image took on average."""
        return sum(evaluation.snn_steps for evaluation in self.evaluations) / len(self.evaluations)

    def per_evaluation(self, cost: CostModel) -> Energy:
        """pJ for one evaluation of one image, the mean over all."""
        return energy_of(self.layers, cost) / self.network_runs

    def per_sample(self, cost: CostModel) -> Energy:
        """pJ for one image through all diffusion steps."""
        return energy_of(self.layers, cost) / self.images

    def totals(self) -> dict[str, float]:
        """Operations for one evaluation of one image: dense MACs, ACs, MACs, neuron updates, and ACs by rate x MACs."""
        layers = self.layers
        totals = {
            "dense_macs": sum(layer.dense_macs for layer in layers),
            "ac": sum(layer.ac for layer in layers),
            "ac_by_rate": sum(layer.rate * layer.dense_macs for layer in layers if layer.binary),
            "mac": sum(layer.mac for layer in layers),
            "neuron_updates": sum(layer.updates for layer in layers),
        }
        return {key: value / self.network_runs for key, value in totals.items()}


def merge_layers(evaluations: Sequence[Sequence[LayerCount]]) -> tuple[LayerCount, ...]:
    """The layers of several evaluations, each over all of them."""
    by_name: dict[str, list[Any]] = {}
    for layers in evaluations:
        for layer in layers:
            by_name.setdefault(layer.name, []).append(layer)
    return tuple(merge(counts) for counts in by_name.values())


def firing_rate(layers: Sequence[LayerCount]) -> float:
    """Spikes over neurons and time steps of all neuron layers; 0 without neurons."""
    neurons = [layer for layer in layers if isinstance(layer, NeuronCount)]
    updates = sum(layer.updates for layer in neurons)
    return sum(sum(layer.fired) for layer in neurons) / updates if updates else 0.0
