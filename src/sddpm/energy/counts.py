"""What one layer did in evaluations of the network: counts of synapses, and of neurons."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar


@dataclass(frozen=True, kw_only=True)
class _Count:
    """What is counted of every layer. Tuples have an entry for each SNN time step in which it ran: T of them, or 1 for
    a layer that runs once (the first convolution, which sees the same image at each step, and what depends on t alone).

    name: of the module.
    shape: of its output for one image and time step, (C, H, W) or (C,).
    parameters: weights and biases.
    images: how many images it saw.
    binary: whether all that was looked at were spikes or none, 0, 1 or -1.
    """

    per_step: ClassVar[tuple[str, ...]] = ("images",)
    name: str
    shape: tuple[int, ...]
    parameters: int
    images: tuple[int, ...]
    binary: bool


@dataclass(frozen=True, kw_only=True)
class SynapticCount(_Count):
    """What a layer with synapses did: what it was given, and the operations of that.

    kind: "conv", "linear", "product" (of spikes with spikes, in attention) or "other".
    macs: dense multiply-accumulates for one image and time step as they are usually given, with those on zero padding.
    synapses: those without padding, which are the ones there are to be done.
    inputs: how many there are for one image and time step.
    active: inputs that were not 0. binary: whether every input was a spike or none.
    sops: synaptic operations, each spike times its fan-out; 0 where the input was not binary.
    multiplications: multiply-accumulates, one a synapse and image; 0 where the input was binary.
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
        """Share of inputs that were not 0, for each time step."""
        return _shares(self.active, self.inputs, self.images)

    @property
    def rate(self) -> float:
        """Share of inputs that were not 0."""
        return sum(self.active) / (self.inputs * sum(self.images))

    @property
    def dense_macs(self) -> int:
        """`macs` over all time steps and images."""
        return self.macs * sum(self.images)

    @property
    def ac(self) -> int:
        """Accumulates: the synaptic operations, where the input was binary."""
        return sum(self.sops)

    @property
    def mac(self) -> int:
        """Multiply-accumulates, where the input was anything else."""
        return sum(self.multiplications)


@dataclass(frozen=True, kw_only=True)
class NeuronCount(_Count):
    """What a layer of neurons did: what it fired. It has no synapses, and so neither MACs nor ACs.

    neurons: how many there are for one image.
    fired: spikes. binary: whether every output was a spike or none.
    leaks: multiplications of an update, 1 for LIF.
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
    """The same layer in several evaluations as one: sums, and binary only if it always was."""

    def added(values: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        longest = max(map(len, values))  # with early exit the last time steps may be missing
        return tuple(sum(v[n] for v in values if n < len(v)) for n in range(longest))

    sums = {name: added([getattr(count, name) for count in counts]) for name in counts[0].per_step}
    return replace(counts[0], **sums, binary=all(count.binary for count in counts))


def in_sequence(parts: Sequence[Count]) -> Count:
    """One evaluation that came time step by time step."""
    joined = {name: sum((getattr(part, name) for part in parts), ()) for name in parts[0].per_step}
    return replace(parts[0], **joined, binary=all(part.binary for part in parts))


def each_step(layer: LayerCount) -> list[LayerCount]:
    """The layer's SNN time steps, each as a count of its own."""
    return [
        replace(layer, **{name: (getattr(layer, name)[n],) for name in layer.per_step})
        for n in range(len(layer.images))
    ]
