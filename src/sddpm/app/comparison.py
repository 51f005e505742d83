"""The same seeds at several firing thresholds."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from sddpm.app.drawing import Drawing, draw
from sddpm.app.settings import MOST_PICTURES, Settings
from sddpm.errors import UserError
from sddpm.figures.grid import class_rows
from sddpm.pipelines import SpikingDiffusionPipeline

MOST_THRESHOLDS = 12


@dataclass(frozen=True)
class Comparison:
    """Pictures for each threshold, in order.

    names: of the thresholds. drawings: one for each started threshold. total: number of all evaluations.
    """

    names: list[str]
    drawings: list[Drawing]

    @property
    def done(self) -> int:
        return sum(drawing.done for drawing in self.drawings)

    @property
    def total(self) -> int:
        return self.drawings[0].total * len(self.names)

    def sheet(self) -> Image.Image:
        """All pictures in one, with a row for each threshold."""
        pictures: list[Tensor] = [drawing.pictures for drawing in self.drawings]
        return class_rows(torch.cat(pictures), self.names[: len(pictures)])


def choices(thresholds: str) -> list[str]:
    """The thresholds in a text such as "0.98x, 0.99x, up*=0.99x". Raises `UserError` for no or too many thresholds."""
    names = [" ".join(part.split()) for part in thresholds.split(",") if part.strip()]
    if not names:
        raise UserError("give thresholds, such as 0.98x, 1x, 1.02x")
    if len(names) > MOST_THRESHOLDS:
        raise UserError(f"{len(names)} thresholds are too many: this page compares at most {MOST_THRESHOLDS}")
    return names


def compare(
    pipeline: SpikingDiffusionPipeline,
    settings: Settings,
    thresholds: str,
    report: Callable[[Comparison], None] = lambda _: None,
) -> Comparison:
    """Draw the same seeds at each threshold; `report` receives all pictures after every evaluation.

    Raises:
        UserError: as in `choices` and `draw`, if possible before anything is drawn; too many pictures.
    """
    names = choices(thresholds)
    each = [replace(settings, thresholds=name) for name in names]
    for one in each:
        pipeline.resolve_options(one.options)
    if (count := len(settings.wanted(pipeline).seeds) * len(names)) > MOST_PICTURES:
        raise UserError(f"{count} pictures are too many: this page draws at most {MOST_PICTURES} at a time")
    drawn: list[Drawing] = []
    for one in each:
        drawn.append(draw(pipeline, one, lambda drawing: report(Comparison(names, [*drawn, drawing]))))
    return Comparison(names, drawn)
