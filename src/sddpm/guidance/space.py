"""The search space of guidance: multiples of the trained thresholds, by group of layers and part of the denoising, and
the scale of the predicted clean image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from sddpm.choices import check_choice
from sddpm.errors import UserError
from sddpm.models.thresholds import Thresholds
from sddpm.pipelines.threshold_guidance import PlainThresholds, StagedThresholds

Point = tuple[float, ...]
"""One number for each axis of a space: multiples of the trained thresholds, then the x0_scale if it is free; all 1 is
the trained model."""

SEARCHES = {
    "scalar": "one threshold for all, as in the paper",
    "layers": "one for each group of layers",
    "time": "one for each part of the denoising",
    "layers-time": "one for each group of layers and part of the denoising",
    "x0-scale": "a factor of the predicted clean image; the thresholds are the model's own",
    "scalar-x0-scale": "one threshold for all, and x0_scale",
}
GROUPS = {"encoder": ("encoder.*", "down.*"), "middle": ("middle.*",), "decoder": ("up.*", "readout.*")}
"""Names for parts of the U-Net, as patterns of layer names."""


@dataclass(frozen=True)
class Space:
    """Thresholds, and x0_scale, as points.

    trained: {layer name: trained threshold}.
    groups: {group: patterns of layer names}, no layer in two groups; empty if the thresholds are not free.
    stages: ("early", "late"), or ("",) if the thresholds stay the same over the denoising.
    boundary: the diffusion step t from which (towards noise) the denoising counts as early.
    scaled: whether x0_scale is free; it is the last axis.
    """

    trained: Mapping[str, float]
    groups: Mapping[str, tuple[str, ...]]
    stages: tuple[str, ...]
    boundary: int
    scaled: bool = False

    @property
    def axes(self) -> list[str]:
        """The name of each axis: "threshold", "encoder", "late", "encoder late", "x0_scale"."""
        names = [
            " ".join(filter(None, (group, stage))) or "threshold" for stage in self.stages for group in self.groups
        ]
        return [*names, "x0_scale"] if self.scaled else names

    @property
    def origin(self) -> Point:
        """The trained thresholds, and scale 1."""
        return (1.0,) * len(self.axes)

    @property
    def start(self) -> str:
        """The origin in words."""
        return "the trained thresholds" if self.groups else "x0_scale 1"

    def thresholds(self, point: Point) -> PlainThresholds | None:
        """The value of a pipeline's `v_threshold` for that point, in its shortest form; None (the model's own) if the
        thresholds are not free."""
        width = len(self.groups)
        if width == 0:
            return None
        stages = [self._of_stage(point[i * width : (i + 1) * width]) for i in range(len(self.stages))]
        if len(stages) == 1 or stages[0] == stages[1]:
            return stages[0]
        return StagedThresholds(stages[0], stages[1], self.boundary)

    def x0_scale(self, point: Point) -> float | None:
        """The value of a pipeline's `x0_scale` for that point; None (the model's own) if it is not free."""
        return point[-1] if self.scaled else None

    def options(self, point: Point) -> dict[str, Any]:
        """Fields of `SamplingOptions` at that point."""
        scale = {"x0_scale": self.x0_scale(point)} if self.scaled else {}
        return {"v_threshold": self.thresholds(point), **scale}

    def values(self, point: Point) -> list[float]:
        """Multiples as absolute thresholds, if all layers were trained with the same one; x0_scale unchanged."""
        trained = set(self.trained.values())
        unit = trained.pop() if len(trained) == 1 else 1.0
        multiples = point[:-1] if self.scaled else point
        return [round(multiple * unit, 6) for multiple in multiples] + list(point[len(multiples) :])

    def describe(self, point: Point) -> str:
        """The point in words, e.g. "0.998" or "encoder 0.98, middle 1, decoder 1.02"."""
        unit = "" if len(set(self.trained.values())) == 1 else " x trained"
        named = list(zip(self.axes, self.values(point), strict=True))
        words = [f"{axis} {value:g}{'' if axis == 'x0_scale' else unit}" for axis, value in named]
        return words[0].removeprefix("threshold ") if len(words) == 1 else ", ".join(words)

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
        trained: {layer name: threshold of the model}.
        search: which numbers are free.
        groups: names of `GROUPS` or patterns of layer names; other layers keep their thresholds.
        boundary: first diffusion step t of the early part; None for half of the steps.
        num_train_timesteps: total number of diffusion steps.

    Raises:
        UserError: no neurons, an unknown search or group, layers in two groups, a boundary outside the denoising.
    """
    check_choice("search", search, SEARCHES)
    if search == "x0-scale":
        return Space(dict(trained), {}, ("",), 0, scaled=True)
    if not trained:
        raise UserError("this model has no spiking neurons, and so no threshold to search for")
    boundary = num_train_timesteps // 2 if boundary is None else boundary
    if not 0 < boundary < num_train_timesteps:
        raise UserError(f"the boundary must be a diffusion step from 1 to {num_train_timesteps - 1}, not {boundary}")
    chosen = _groups(list(trained), groups) if search in ("layers", "layers-time") else {"": ("*",)}
    stages = ("early", "late") if search in ("time", "layers-time") else ("",)
    return Space(dict(trained), chosen, stages, boundary, scaled=search == "scalar-x0-scale")


def _groups(layers: list[str], names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    if not names:
        raise UserError(f"no group of layers given: choose from {', '.join(GROUPS)}")
    found: dict[str, tuple[str, ...]] = {}
    owner: dict[str, str] = {}
    for name in dict.fromkeys(names):
        patterns = GROUPS.get(name, (name,))
        matching = tuple(p for p in patterns if any(fnmatchcase(layer, p) for layer in layers))
        if not matching:
            raise UserError(
                f"unknown group of layers {name!r}: choose from {', '.join(GROUPS)}, or a pattern of layer names such"
                f" as {layers[0]!r}"
            )
        for layer in layers:
            if any(fnmatchcase(layer, p) for p in matching):
                if layer in owner:
                    raise UserError(f"the groups {owner[layer]!r} and {name!r} both have the layer {layer}")
                owner[layer] = name
        found[name] = matching
    return found
