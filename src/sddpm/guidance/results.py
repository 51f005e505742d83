"""What guidance finds."""

from dataclasses import dataclass
from typing import Any

from sddpm.guidance.bootstrap import Estimate
from sddpm.guidance.settings import SearchPlan
from sddpm.guidance.space import Point, Space


@dataclass(frozen=True)
class Comparison:
    """The metric at a point, and its difference to the model as trained on the same seeds (below 0 is better):
    of all samples together, and of each seed set by itself."""

    point: Point
    value: float
    difference: Estimate
    values: list[float]
    differences: list[Estimate]

    @property
    def trained_value(self) -> float:
        """The metric of the model as trained, on the same seeds."""
        return self.value - self.difference.value


@dataclass(frozen=True)
class Loss:
    """The noise-prediction loss at a point: its mean, its difference to the trained thresholds on the same images and
    noise, and its mean in each tenth of the diffusion steps."""

    point: Point
    value: float
    difference: Estimate
    by_tenth: list[float]


@dataclass(frozen=True)
class Proxy:
    """How the loss ranks the points, against how the metric does.

    images: what the loss was measured on. held_out: whether the model was not trained on them, as far as is known.
    """

    losses: list[Loss]
    correlation: float
    p_value: float
    images: str
    held_out: bool
    tenths: list[tuple[int, int]]

    @property
    def best(self) -> Point:
        """What a search by the loss alone would have chosen among the same points."""
        return min(self.losses, key=lambda loss: loss.value).point

    @property
    def trusted(self) -> bool:
        """Whether the ranks agree well and not by chance."""
        return self.correlation >= 0.7 and self.p_value < 0.05


@dataclass(frozen=True)
class GuidanceReport:
    """What `guide` found.

    trials: on the seeds of the search, in the order tried; the model as trained is among them.
    chosen: the best of them. validation: chosen, on fresh seeds; None if nothing was better than as trained.
    """

    label: str
    space: Space
    search: SearchPlan
    samples: int
    trials: list[Comparison]
    chosen: Point
    validation: Comparison | None
    proxy: Proxy | None
    facts: dict[str, Any]

    @property
    def beats_trained(self) -> bool:
        """Whether the choice is better beyond noise on seeds that the search never saw."""
        return self.validation is not None and self.validation.difference.below_zero
