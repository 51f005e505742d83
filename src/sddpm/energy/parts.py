"""The table of the parts of the energy. A new part is one entry: its cost, colour and name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from sddpm.energy.counts import LayerCount, NeuronCount

Picojoule = Annotated[float, Field(ge=0)]


class Strict(BaseModel):
    """Keys of a cost model: no unknown or missing keys, only finite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class MemoryTraffic(Strict):
    """Bits that each operation moves, and the energy per bit."""

    pj_per_bit: Picojoule
    bits_per_mac: Picojoule
    bits_per_ac: Picojoule
    bits_per_update: Picojoule


@dataclass(frozen=True)
class Part:
    """A part of the energy.

    title, colour: in figures.
    energy: (counts of a layer, cost model) -> pJ over all its images.
    numbers: cost model -> its costs, in words for tables; "" if there are none.
    section: optional keys of a cost model under the part's name; None if `CostModel` has them itself.
    """

    title: str
    colour: str
    energy: Callable[[LayerCount, Any], float]
    numbers: Callable[[Any], str]
    section: type[Strict] | None = None


def _neurons(layer: LayerCount, cost: Any) -> float:
    leaks = layer.leaks if isinstance(layer, NeuronCount) else 0
    return layer.updates * (cost.update_pj + cost.leak_pj * leaks)


def _memory(layer: LayerCount, cost: Any) -> float:
    memory = cost.memory
    if memory is None:
        return 0.0
    moved = layer.mac * memory.bits_per_mac + layer.ac * memory.bits_per_ac + layer.updates * memory.bits_per_update
    return moved * memory.pj_per_bit


def _memory_numbers(cost: Any) -> str:
    memory = cost.memory
    if memory is None:
        return ""
    return (
        f"{memory.pj_per_bit:g} pJ per bit, {memory.bits_per_mac:g} bits per MAC, {memory.bits_per_ac:g} per AC, "
        f"{memory.bits_per_update:g} per update"
    )


PARTS = {
    "mac": Part(
        "multiply-accumulates",
        "#c1272d",
        lambda layer, cost: layer.mac * cost.mac_pj,
        lambda cost: f"MAC {cost.mac_pj:g} pJ",
    ),
    "ac": Part(
        "accumulates",
        "#1b6ca8",
        lambda layer, cost: layer.ac * cost.ac_pj,
        lambda cost: f"AC {cost.ac_pj:g} pJ",
    ),
    "neurons": Part(
        "neurons",
        "#e0a030",
        _neurons,
        lambda cost: f"update {cost.update_pj:g}, leak {cost.leak_pj:g} pJ",
    ),
    "memory": Part("memory", "#9a9a9a", _memory, _memory_numbers),
}
"""Keys are the names in JSON; the order is that of the stacked bars."""
