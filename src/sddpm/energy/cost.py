"""What an operation costs: cost models as data, those of the package (cost_models/*.yaml) or one's own YAML."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sddpm.choices import did_you_mean
from sddpm.energy.operations import LayerCount
from sddpm.errors import UserError

FOLDER = files("sddpm.energy") / "cost_models"
Picojoule = Annotated[float, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class MemoryTraffic(_Strict):
    """Bits that each operation moves, and what moving one costs."""

    pj_per_bit: Picojoule
    bits_per_mac: Picojoule
    bits_per_ac: Picojoule
    bits_per_update: Picojoule


class CostModel(_Strict):
    """Energy of an operation in pJ.

    name, description: for tables; source: where the numbers are from.
    mac_pj: a multiply-accumulate; ac_pj: an accumulate; update_pj: one neuron for one SNN time step (it adds its
    current, compares, resets); leak_pj: the multiplication of a leaky neuron, on top.
    memory: traffic to memory on top of the arithmetic; null for arithmetic alone.
    """

    name: str
    description: str
    source: str
    mac_pj: Picojoule
    ac_pj: Picojoule
    update_pj: Picojoule
    leak_pj: Picojoule
    memory: MemoryTraffic | None


@dataclass(frozen=True)
class Energy:
    """Energy in pJ by where it goes: multiply-accumulates, accumulates, neurons, memory."""

    mac: float = 0.0
    ac: float = 0.0
    neurons: float = 0.0
    memory: float = 0.0

    @property
    def total(self) -> float:
        return self.mac + self.ac + self.neurons + self.memory

    def __add__(self, other: "Energy") -> "Energy":
        return Energy(
            self.mac + other.mac, self.ac + other.ac, self.neurons + other.neurons, self.memory + other.memory
        )

    def __truediv__(self, number: float) -> "Energy":
        return Energy(self.mac / number, self.ac / number, self.neurons / number, self.memory / number)


def energy_of(layers: Iterable[LayerCount], cost: CostModel) -> Energy:
    """What the operations of `layers` cost, over all their images."""
    total = Energy()
    memory = cost.memory or MemoryTraffic(pj_per_bit=0, bits_per_mac=0, bits_per_ac=0, bits_per_update=0)
    for layer in layers:
        moved = layer.mac * memory.bits_per_mac + layer.ac * memory.bits_per_ac + layer.updates * memory.bits_per_update
        update = cost.update_pj + cost.leak_pj * layer.leaky
        total += Energy(
            layer.mac * cost.mac_pj, layer.ac * cost.ac_pj, layer.updates * update, moved * memory.pj_per_bit
        )
    return total


def cost_model_names() -> list[str]:
    """The cost models of the package, the published one first."""
    return sorted(file.name.removesuffix(".yaml") for file in FOLDER.iterdir() if file.name.endswith(".yaml"))


def load_cost_model(name: str | Path) -> CostModel:
    """A cost model by its name in the package, or from one's own YAML of the same keys.

    Raises:
        UserError: no such model, no YAML, a key that is missing or unknown, a number that is negative or none.
    """
    text, source = _read(str(name))
    try:
        values: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise UserError(f"{source}: not valid YAML" + (f" (line {mark.line + 1})" if mark else "")) from error
    if not isinstance(values, dict):
        raise UserError(f"{source}: a cost model has the keys {', '.join(CostModel.model_fields)}")
    try:
        return CostModel.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{source}: {_explain(error)}") from error


def _read(name: str) -> tuple[str, str]:
    names = cost_model_names()
    if name in names:
        return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8"), name
    path = Path(name)
    if not path.is_file():
        hint = did_you_mean(name, names, f"known are {', '.join(names)}, or give a YAML file")
        raise UserError(f"no cost model {name!r}: {hint}")
    try:
        return path.read_text(encoding="utf-8"), name
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {name}: {error}") from error


def _explain(error: ValidationError) -> str:
    detail = error.errors(include_url=False)[0]
    key = ".".join(map(str, detail["loc"]))
    if detail["type"] == "missing":
        return f"the key {key} is missing"
    if detail["type"] == "extra_forbidden":
        return f"unknown key {key}; known are {', '.join(CostModel.model_fields)}"
    problem = detail["msg"].replace("Input should be", "should be").replace("valid ", "")
    return f"{key} = {detail['input']!r} {problem}"
