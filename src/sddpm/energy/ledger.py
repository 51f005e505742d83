"""The ledger of a model: the operation counts of its layers at every diffusion step, and their cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sddpm.energy.cost import CostModel, Energy, energy_of
from sddpm.energy.counts import LayerCount, NeuronCount, merge


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of all images, at one diffusion step.

    index: 0 for the first; t: diffusion step; images: how many (with classifier-free guidance each counts twice: with
    and without its class); layers: the counts of each, in the order in which they ran.
    """

    index: int
    t: int
    images: int
    layers: tuple[LayerCount, ...]

    @property
    def snn_steps(self) -> float:
        """Average number of SNN time steps per image: T, unless there is early exit."""
        ran = max(self.layers, key=lambda layer: len(layer.images))
        return sum(ran.images) / self.images


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """The result of `measure_sampling` and `measure_images`.

    title: the name of the model. parameters: number of parameters. spiking: whether it has neurons. T: SNN time steps,
    1 without neurons. inputs: the input of the network, in words. solver: the solver that sets the diffusion steps.
    images: how many. evaluations: one per diffusion step.
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
        """Every layer, merged over all evaluations."""
        return merge_layers([evaluation.layers for evaluation in self.evaluations])

    @property
    def network_runs(self) -> int:
        """Evaluations times images: divide the layers' totals by this for one evaluation of one image."""
        return sum(evaluation.images for evaluation in self.evaluations)

    @property
    def evaluations_per_sample(self) -> int:
        """Network evaluations per sample: one per diffusion step, or two with classifier-free guidance."""
        return self.network_runs // self.images

    @property
    def snn_steps(self) -> float:
        """Average number of SNN time steps per image."""
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
    """The layers of several evaluations, each merged over all evaluations."""
    by_name: dict[str, list[Any]] = {}
    for layers in evaluations:
        for layer in layers:
            by_name.setdefault(layer.name, []).append(layer)
    return tuple(merge(counts) for counts in by_name.values())


def firing_rate(layers: Sequence[LayerCount]) -> float:
    """Spikes per neuron and time step, over all neuron layers; 0 without neurons."""
    neurons = [layer for layer in layers if isinstance(layer, NeuronCount)]
    updates = sum(layer.updates for layer in neurons)
    return sum(sum(layer.fired) for layer in neurons) / updates if updates else 0.0
