"""Operation counts of one layer: of layers with synapses, and of neurons."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar


@dataclass(frozen=True, kw_only=True)
class _Count:
    """Counts that every layer has. Tuples have an entry for each SNN time step in which the layer ran: T of them, or 1
    for a layer that runs once (the first convolution, which receives the same image at each step, and layers that
    depend only on t).

    name: name of the module.
    shape: shape of its output for one image and time step, (C, H, W) or (C,).
    parameters: number of weights and biases.
    images: number of images it processed.
    binary: whether all inspected values were 0, 1 or -1.
    """

    per_step: ClassVar[tuple[str, ...]] = ("images",)
    name: str
    shape: tuple[int, ...]
    parameters: int
    images: tuple[int, ...]
    binary: bool


@dataclass(frozen=True, kw_only=True)
class SynapticCount(_Count):
    """Counts of a layer with synapses: its inputs, and the resulting operations.

    kind: "conv", "linear", "product" (of spikes with spikes, in attention) or "other" (products of activations).
    macs: dense multiply-accumulates for one image and time step as usually reported, including those on zero padding.
    synapses: the same without those on padding, which need no operation.
    inputs: number of inputs for one image and time step.
    active: number of nonzero inputs. binary: whether every input was 0, 1 or -1.
    sops: synaptic operations, each spike times its fan-out; 0 if the input was not binary.
    multiplications: multiply-accumulates, one per synapse and image; 0 if the input was binary.
    """

    per_step: ClassVar[tuple[str, ...]] = ("images", "active", "sops", "multiplications")
    updates: ClassVar[int] = 0
    kind: str
    macs: int
    synapses: int
    inputs: int
    active: tuple[int, ...]
    sops: tuple[int, ...]
    multiplications: tuple[int, ...]

    @property
    def rates(self) -> tuple[float, ...]:
        """Share of nonzero inputs, for each time step."""
        return _shares(self.active, self.inputs, self.images)

    @property
    def rate(self) -> float:
        """Share of nonzero inputs."""
        return sum(self.active) / (self.inputs * sum(self.images))

    @property
    def dense_macs(self) -> int:
        """`macs` over all time steps and images."""
        return self.macs * sum(self.images)

    @property
    def ac(self) -> int:
        """Accumulates: the synaptic operations, if the input was binary."""
        return sum(self.sops)

    @property
    def mac(self) -> int:
        """Multiply-accumulates, if the input was not binary."""
        return sum(self.multiplications)


@dataclass(frozen=True, kw_only=True)
class NeuronCount(_Count):
    """Counts of a layer of neurons: its spikes. It has no synapses, and therefore neither MACs nor ACs.

    neurons: number of neurons for one image.
    fired: number of spikes. binary: whether every output was 0, 1 or -1.
    leaks: multiplications per update, 1 for LIF.
    """

    per_step: ClassVar[tuple[str, ...]] = ("images", "fired")
    kind: ClassVar[str] = "neuron"
    macs: ClassVar[int] = 0
    synapses: ClassVar[int] = 0
    dense_macs: ClassVar[int] = 0
    ac: ClassVar[int] = 0
    mac: ClassVar[int] = 0
    neurons: int
    fired: tuple[int, ...]
    leaks: int = 0

    @property
    def rates(self) -> tuple[float, ...]:
        """Share of neurons that fired, for each time step."""
        return _shares(self.fired, self.neurons, self.images)

    @property
    def rate(self) -> float:
        """The firing rate: share of neurons that fired."""
        return sum(self.fired) / (self.neurons * sum(self.images))

    @property
    def sops(self) -> tuple[int, ...]:
        return (0,) * len(self.images)

    @property
    def leaky(self) -> bool:
        """Whether a neuron multiplies its membrane by a leak."""
        return self.leaks > 0

    @property
    def updates(self) -> int:
        """Neuron updates: one for every neuron and time step."""
        return self.neurons * sum(self.images)


LayerCount = SynapticCount | NeuronCount
Count = TypeVar("Count", SynapticCount, NeuronCount)


def _shares(active: Sequence[int], among: int, images: Sequence[int]) -> tuple[float, ...]:
    return tuple(a / (among * n) if n else 0.0 for a, n in zip(active, images, strict=True))


def merge(counts: Sequence[Count]) -> Count:
    """Merge the counts of one layer in several evaluations: sums; binary only if all were binary."""

    def added(values: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        longest = max(map(len, values))  # with early exit the last time steps may be missing
        return tuple(sum(v[n] for v in values if n < len(v)) for n in range(longest))

    sums = {name: added([getattr(count, name) for count in counts]) for name in counts[0].per_step}
    return replace(counts[0], **sums, binary=all(count.binary for count in counts))


def in_sequence(parts: Sequence[Count]) -> Count:
    """Join the counts of one evaluation that ran time step by time step."""
    joined = {name: sum((getattr(part, name) for part in parts), ()) for name in parts[0].per_step}
    return replace(parts[0], **joined, binary=all(part.binary for part in parts))


def each_step(layer: LayerCount) -> list[LayerCount]:
    """Split a count into one count per SNN time step."""
    return [
        replace(layer, **{name: (getattr(layer, name)[n],) for name in layer.per_step})
        for n in range(len(layer.images))
    ]
