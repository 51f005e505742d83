"""The thresholds among which guidance searches: multiples of the trained ones, by group of layers and part of the
denoising."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sddpm.errors import UserError
from sddpm.models.thresholds import Thresholds
from sddpm.pipelines.threshold_guidance import PlainThresholds, StagedThresholds

Point = tuple[float, ...]
"""One multiple of the trained thresholds for each axis of a space; all 1 is the model as it was trained."""

SEARCHES = {
    "scalar": "one threshold for all, as in the paper",
    "layers": "one for each group of layers",
    "time": "one for each part of the denoising",
    "layers-time": "one for each group of layers and part of the denoising",
}
GROUPS = {"encoder": ("encoder.*", "down.*"), "middle": ("middle.*",), "decoder": ("up.*", "readout.*")}
"""Names for parts of the U-Net, as patterns of layer names."""


@dataclass(frozen=True)
class Space:
    """Thresholds as points.

    trained: layer name -> the threshold it was trained with.
    groups: group -> patterns of layer names, no layer in two of them.
    stages: ("early", "late"), or ("",) if the thresholds stay the same over the denoising.
    boundary: the diffusion step t from which on (towards noise) the denoising is early.
    """

    trained: Mapping[str, float]
    groups: Mapping[str, tuple[str, ...]]
    stages: tuple[str, ...]
    boundary: int

    @property
    def axes(self) -> list[str]:
        """What each number of a point is for: "threshold", "encoder", "late", "encoder late"."""
        return [" ".join(filter(None, (group, stage))) or "threshold" for stage in self.stages for group in self.groups]

    @property
    def origin(self) -> Point:
        """The thresholds as trained."""
        return (1.0,) * (len(self.stages) * len(self.groups))

    def thresholds(self, point: Point) -> PlainThresholds:
        """What a pipeline takes as `v_threshold` for that point, in its shortest form."""
        width = len(self.groups)
        stages = [self._of_stage(point[i : i + width]) for i in range(0, len(point), width)]
        if len(stages) == 1 or stages[0] == stages[1]:
            return stages[0]
        return StagedThresholds(stages[0], stages[1], self.boundary)

    def value(self, multiple: float) -> float:
        """A multiple as the threshold it means, if all layers were trained with one; otherwise the multiple."""
        values = set(self.trained.values())
        return round(multiple * values.pop(), 6) if len(values) == 1 else multiple

    def describe(self, point: Point) -> str:
        """The point in words, e.g. "0.998" or "encoder 0.98, middle 1, decoder 1.02"."""
        unit = "" if len(set(self.trained.values())) == 1 else " x trained"
        numbers = [f"{self.value(multiple):g}{unit}" for multiple in point]
        if self.axes == ["threshold"]:
            return numbers[0]
        return ", ".join(f"{axis} {number}" for axis, number in zip(self.axes, numbers, strict=True))

    def _of_stage(self, multiples: Point) -> Thresholds:
        changed: dict[str, float] = {}
        everything = dict(self.trained)
        for patterns, multiple in zip(self.groups.values(), multiples, strict=True):
            for pattern in patterns:
                layers = {
                    name: round(v * multiple, 6) for name, v in self.trained.items() if fnmatchcase(name, pattern)
                }
                everything |= layers
                values = set(layers.values())
                changed |= {pattern: values.pop()} if len(values) == 1 else layers
        values = set(everything.values())
        return values.pop() if len(values) == 1 else changed


def make_space(
    trained: Mapping[str, float], search: str, groups: Sequence[str], boundary: int | None, num_train_timesteps: int
) -> Space:
    """The space of a search of `SEARCHES`.

    Args:
        trained: layer name -> threshold of the model.
        search: which numbers are free.
        groups: names of `GROUPS` or patterns of layer names; other layers keep their thresholds.
        boundary: first diffusion step t of the early part; None for the middle.
        num_train_timesteps: diffusion steps in all.

    Raises:
        UserError: no neurons, an unknown search or group, layers in two groups, a boundary outside the denoising.
    """
    if not trained:
        raise UserError("this model has no spiking neurons, and so no threshold to guide it by")
    if search not in SEARCHES:
        raise UserError(f"unknown search {search!r}: choose one of {', '.join(SEARCHES)}")
    boundary = num_train_timesteps // 2 if boundary is None else boundary
    if not 0 < boundary < num_train_timesteps:
        raise UserError(f"the boundary must be a diffusion step from 1 to {num_train_timesteps - 1}, not {boundary}")
    chosen = _groups(list(trained), groups) if search in ("layers", "layers-time") else {"": ("*",)}
    return Space(dict(trained), chosen, ("early", "late") if search in ("time", "layers-time") else ("",), boundary)


def _groups(layers: list[str], names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    if not names:
        raise UserError(f"no group of layers given: choose among {', '.join(GROUPS)}")
    found: dict[str, tuple[str, ...]] = {}
    owner: dict[str, str] = {}
    for name in dict.fromkeys(names):
        patterns = GROUPS.get(name, (name,))
        matching = tuple(p for p in patterns if any(fnmatchcase(layer, p) for layer in layers))
        if not matching:
            raise UserError(
                f"unknown group of layers {name!r}: choose among {', '.join(GROUPS)}, or a pattern of layer names such"
                f" as {layers[0]!r}"
            )
        for layer in layers:
            if any(fnmatchcase(layer, p) for p in matching):
                if layer in owner:
                    raise UserError(f"the groups {owner[layer]!r} and {name!r} both have the layer {layer}")
                owner[layer] = name
        found[name] = matching
    return found
