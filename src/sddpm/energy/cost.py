"""What an operation costs: cost models as data, those of the package (cost_models/*.yaml) or one's own YAML."""

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

    name, description: for tables; source: where the numbers are from.
    mac_pj: a multiply-accumulate; ac_pj: an accumulate; update_pj: one neuron for one SNN time step (it adds its
    current, compares, resets); leak_pj: the multiplication of a leaky neuron, on top.
    memory: traffic to memory on top of the arithmetic; null for arithmetic alone.
    Parts of `PARTS` with a section have it under their name, or not at all.
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
    """Energy in pJ by where it goes, {name of `PARTS`: pJ}; each is an attribute too."""

    parts: Mapping[str, float]

    def __getattr__(self, name: str) -> float:
        if name.startswith("_") or name not in (parts := self.__dict__.get("parts", {})):
            raise AttributeError(f"no part of the energy is called {name!r}")
        return parts[name]

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    def __add__(self, other: "Energy") -> "Energy":
        return Energy({name: pj + other.parts[name] for name, pj in self.parts.items()})

    def __truediv__(self, number: float) -> "Energy":
        return Energy({name: pj / number for name, pj in self.parts.items()})


def energy_of(layers: Iterable[LayerCount], cost: CostModel) -> Energy:
    """What the operations of `layers` cost, over all their images."""
    layers = list(layers)
    return Energy({name: sum((part.energy(layer, cost) for layer in layers), 0.0) for name, part in PARTS.items()})


def cost_model_type() -> type[CostModel]:
    """`CostModel` with the sections of parts that bring their own."""
    sections = {name: (part.section | None, None) for name, part in PARTS.items() if part.section is not None}
    return create_model("CostModel", __base__=CostModel, **sections) if sections else CostModel  # type: ignore[call-overload]


def cost_model_names() -> list[str]:
    """The cost models of the package, the published one first."""
    return sorted(file.name.removesuffix(".yaml") for file in FOLDER.iterdir() if file.name.endswith(".yaml"))


def load_cost_model(name: str | Path) -> CostModel:
    """A cost model by its name in the package, or from one's own YAML of the same keys.

    Raises:
        UserError: no such model, no YAML, a key that is missing or unknown, a number that is negative or none.
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
        hint = did_you_mean(name, names, f"known are {', '.join(names)}, or give a YAML file")
        raise UserError(f"no cost model {name!r}: {hint}")
    return read_text(name, MOST_BYTES, "cost model"), name


def _explain(error: ValidationError) -> str:
    detail = error.errors(include_url=False)[0]
    key = ".".join(map(str, detail["loc"]))
    if detail["type"] == "missing":
        return f"the key {key} is missing"
    if detail["type"] == "extra_forbidden":
        return f"unknown key {key}; known are {', '.join(cost_model_type().model_fields)}"
    problem = detail["msg"].replace("Input should be", "should be").replace("valid ", "")
    return f"{key} = {detail['input']!r} {problem}"
