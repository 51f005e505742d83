"""The results of guidance."""

from dataclasses import dataclass
from typing import Any

from sddpm.guidance.bootstrap import Estimate
from sddpm.guidance.settings import SearchPlan
from sddpm.guidance.space import Point, Space


@dataclass(frozen=True)
class Comparison:
    """The metric at a point, and its difference to the trained model on the same seeds (below 0 is better): over all
    samples together, and for each seed set."""

    point: Point
    value: float
    difference: Estimate
    values: list[float]
    differences: list[Estimate]

    @property
    def trained_value(self) -> float:
        """The metric of the trained model, on the same seeds."""
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
    """A comparison of the loss's ranking of the points with the metric's.

    images: the images used for the loss. held_out: whether they are known not to be training images.
    """

    losses: list[Loss]
    correlation: float
    p_value: float
    images: str
    held_out: bool
    tenths: list[tuple[int, int]]

    @property
    def best(self) -> Point:
        """The point with the lowest loss."""
        return min(self.losses, key=lambda loss: loss.value).point

    @property
    def trusted(self) -> bool:
        """Whether the ranks agree well and significantly."""
        return self.correlation >= 0.7 and self.p_value < 0.05


@dataclass(frozen=True)
class GuidanceReport:
    """The result of `guide`.

    trials: on the seeds of the search, in the order tried, including the trained model. chosen: the best of them.
    validation: `chosen` on fresh seeds; None if nothing was better than the trained model.
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
        """Whether the choice is significantly better on seeds that the search did not use."""
        return self.validation is not None and self.validation.difference.below_zero
