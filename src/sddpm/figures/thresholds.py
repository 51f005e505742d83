"""A metric over firing thresholds, with the uncertainty of its difference to the trained ones, and the loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sddpm.errors import UserError

METRIC, LOSS, CHOSEN, INK = "#1b6ca8", "#8a5a00", "#c1272d", "#555555"
_MOST_TICKS = 11


@dataclass(frozen=True)
class Curve:
    """values: one for each threshold. intervals: of their differences to the trained one."""

    label: str
    values: Sequence[float]
    intervals: Sequence[tuple[float, float]]


def threshold_curves(
    thresholds: Sequence[float],
    curves: Sequence[Curve],
    *,
    trained: int,
    chosen: int,
    title: str = "",
    label: str = "firing threshold",
) -> Figure:
    """Curves over one threshold (or another number), one below the other. Each bar is the interval of the difference to
    the trained threshold, drawn relative to the trained value: if it does not cross the line, the difference is
    significant.

    Args:
        thresholds: ascending.
        curves: the curves to draw.
        trained, chosen: the indices of these thresholds.
        title: title of the figure.
        label: label of the axis.

    Raises:
        UserError: nothing to draw, or different numbers of values and thresholds.
    """
    figure, panels = _panels(curves, len(thresholds), title)
    distances = sorted(abs(v - thresholds[trained]) for i, v in enumerate(thresholds) if i != trained)
    for axes, curve, colour in zip(panels, curves, (METRIC, LOSS), strict=False):
        if distances and distances[-1] > 8 * distances[0]:
            _stretch(axes, thresholds[trained], distances[0])
        _draw(axes, thresholds, curve, colour, trained, chosen, line=True)
    panels[-1].set_xlabel(label)
    _ticks(panels, thresholds)
    return figure


def threshold_trials(
    names: Sequence[str], curves: Sequence[Curve], *, trained: int, chosen: int, title: str = ""
) -> Figure:
    """As `threshold_curves`, for several thresholds at once: one position for each choice, in the order tried."""
    figure, panels = _panels(curves, len(names), title)
    places = list(range(1, len(names) + 1))
    for axes, curve, colour in zip(panels, curves, (METRIC, LOSS), strict=False):
        _draw(axes, places, curve, colour, trained, chosen, line=False)
    best = np.minimum.accumulate(curves[0].values)
    panels[0].step(places, best, where="post", color=INK, linewidth=1, linestyle=":", label="best so far")
    panels[0].legend(frameon=False, fontsize=8)
    panels[-1].set_xlabel(
        f"choice of thresholds, in the order tried\n{fill(f'chosen: {names[chosen]}', 110)}", fontsize=8
    )
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _panels(curves: Sequence[Curve], count: int, title: str) -> tuple[Figure, list[Axes]]:
    if not curves or count == 0:
        raise UserError("a threshold curve needs at least one threshold and one curve")
    for curve in curves:
        if len(curve.values) != count or len(curve.intervals) != count:
            raise UserError(f"{curve.label}: {len(curve.values)} values for {count} thresholds")
    figure = Figure(figsize=(7.2, 1.2 + 2.7 * len(curves)), dpi=120, layout="constrained")
    panels: Any = figure.subplots(len(curves), 1, sharex=True, squeeze=False)
    figure.suptitle(title, fontsize=10)
    return figure, list(panels[:, 0])


def _draw(axes: Axes, x: Sequence[float], curve: Curve, colour: str, trained: int, chosen: int, *, line: bool) -> None:
    before = curve.values[trained]
    low, high = (np.array([interval[i] for interval in curve.intervals]) + before for i in (0, 1))
    axes.axhline(before, color=INK, linewidth=0.8, linestyle="--", label="as trained")
    axes.vlines(x, low, high, color=colour, alpha=0.45, linewidth=2.2, label="95 % of the difference")
    axes.plot(x, curve.values, color=colour, marker="o", markersize=3.5, linewidth=1.2 if line else 0)
    axes.plot(x[chosen], curve.values[chosen], "o", color=CHOSEN, markersize=7, mfc="none", mew=1.6, label="chosen")
    axes.set_ylabel(curve.label)
    axes.grid(True, linewidth=0.3, alpha=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)


def _stretch(axes: Axes, centre: float, unit: float) -> None:
    """Use a horizontal scale that is linear within `unit` of the trained threshold and logarithmic beyond."""
    axes.set_xscale(
        "function", functions=(lambda v: np.arcsinh((v - centre) / unit), lambda u: centre + unit * np.sinh(u))
    )


def _ticks(panels: Sequence[Axes], thresholds: Sequence[float]) -> None:
    """Set ticks at thresholds that are far enough apart to be readable."""
    forward = panels[-1].transScale.transform
    places = [float(forward((v, 1.0))[0]) for v in thresholds]
    room = (places[-1] - places[0]) / _MOST_TICKS
    kept: list[int] = []
    for i in sorted(range(len(places)), key=lambda i: len(f"{thresholds[i]:g}")):
        if all(abs(places[i] - places[j]) >= room for j in kept):
            kept.append(i)
    kept.sort()
    panels[-1].set_xticks([thresholds[i] for i in kept], [f"{thresholds[i]:g}" for i in kept], fontsize=8)
    panels[-1].minorticks_off()
