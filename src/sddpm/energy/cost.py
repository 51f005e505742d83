"""The cost of an operation: cost models as data, from the package (cost_models/*.yaml) or a user's YAML file."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from pydantic import ValidationError, create_model

from sddpm.choices import did_you_mean
from sddpm.energy.counts import LayerCount
from sddpm.energy.parts import PARTS, MemoryTraffic, Picojoule, Strict
from sddpm.errors import UserError
from sddpm.opening.files import read_text
from sddpm.opening.yaml_files import MOST_BYTES, parse_yaml

FOLDER = files("sddpm.energy") / "cost_models"


class CostModel(Strict):
    """Energy of an operation in pJ.

    name, description: for tables; source: the source of the numbers.
    mac_pj: a multiply-accumulate; ac_pj: an accumulate; update_pj: one neuron for one SNN time step (it adds its
    current, compares, resets); leak_pj: the multiplication of a leaky neuron, on top.
    memory: memory traffic in addition to the arithmetic; null for arithmetic only.
    Parts of `PARTS` with their own section have it under their name; it is optional.
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
    """Energy in pJ by part, {name of `PARTS`: pJ}; each part is also an attribute."""

    parts: Mapping[str, float]

    def __getattr__(self, name: str) -> float:
        if name.startswith("_") or name not in (parts := self.__dict__.get("parts", {})):
            raise AttributeError(f"no part of the energy is named {name!r}")
        return parts[name]

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    def __add__(self, other: "Energy") -> "Energy":
        return Energy({name: pj + other.parts[name] for name, pj in self.parts.items()})

    def __truediv__(self, number: float) -> "Energy":
        return Energy({name: pj / number for name, pj in self.parts.items()})


def energy_of(layers: Iterable[LayerCount], cost: CostModel) -> Energy:
    """The cost of the operations of `layers`, over all their images."""
    layers = list(layers)
    return Energy({name: sum((part.energy(layer, cost) for layer in layers), 0.0) for name, part in PARTS.items()})


def cost_model_type() -> type[CostModel]:
    """`CostModel` with the additional sections of parts."""
    sections = {name: (part.section | None, None) for name, part in PARTS.items() if part.section is not None}
    return create_model("CostModel", __base__=CostModel, **sections) if sections else CostModel  # type: ignore[call-overload]


def cost_model_names() -> list[str]:
    """The cost models of the package, the published one first."""
    return sorted(file.name.removesuffix(".yaml") for file in FOLDER.iterdir() if file.name.endswith(".yaml"))


def load_cost_model(name: str | Path) -> CostModel:
    """A cost model by its name in the package, or from a YAML file with the same keys.

    Raises:
        UserError: no such model, invalid YAML, a missing or unknown key, or a value that is not a number of at least 0.
    """
    text, source = _read(str(name))
    values = parse_yaml(text, source)
    if not isinstance(values, dict):
        raise UserError(f"{source}: a cost model has the keys {', '.join(cost_model_type().model_fields)}")
    try:
        return cost_model_type().model_validate(values)
    except ValidationError as error:
        raise UserError(f"{source}: {_explain(error)}") from error


def _read(name: str) -> tuple[str, str]:
    names = cost_model_names()
    if name in names:
        return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8"), name
    if not Path(name).is_file():
        hint = did_you_mean(name, names, f"the cost models are {', '.join(names)}, or give a YAML file")
        raise UserError(f"no cost model {name!r}: {hint}")
    return read_text(name, MOST_BYTES, "cost model"), name


def _explain(error: ValidationError) -> str:
    detail = error.errors(include_url=False)[0]
    key = ".".join(map(str, detail["loc"]))
    if detail["type"] == "missing":
        return f"the key {key} is missing"
    if detail["type"] == "extra_forbidden":
        return f"unknown key {key}; the keys are {', '.join(cost_model_type().model_fields)}"
    problem = detail["msg"].replace("Input should be", "should be").replace("valid ", "")
    return f"{key} = {detail['input']!r} {problem}"
