"""Charts of the views as SVG, small enough for a phone; their numbers are also in the text next to them."""

import base64
import io
import threading
from collections.abc import Sequence
from html import escape

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

INK, SPIKES, SECOND, QUIET = "#3f3f46", "#c2410c", "#1b6ca8", "#a1a1aa"
WIDTH = 4.4
_drawing = threading.Lock()  # matplotlib's fonts are shared by all threads


def chart(figure: Figure, title: str, says: str) -> str:
    """A figure with its title as HTML. says: a description of the chart for screen readers."""
    buffer = io.BytesIO()
    with _drawing:
        figure.savefig(buffer, format="svg")
    url = "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption><img src="{url}" alt="{escape(says)}"></figure>'
    )


def blank(height: float) -> tuple[Figure, Axes]:
    """A figure with one empty pair of axes."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.tick_params(labelsize=9, colors=INK)
    return figure, axes


def raster(spikes: np.ndarray) -> Figure:
    """Spikes bool [neurons, T]: one mark each, time to the right."""
    count, T = spikes.shape
    figure, axes = blank(2.9)
    axes.imshow(spikes, cmap=ListedColormap(["white", SPIKES]), aspect="auto", vmin=0, vmax=1, interpolation="nearest",
                extent=(0.5, T + 0.5, count + 0.5, 0.5))  # fmt: skip
    if T <= 32:
        axes.vlines(np.arange(1.5, T), 0.5, count + 0.5, color="white", linewidth=4)
    axes.set_xticks(range(1, T + 1, -(-T // 16)))
    axes.set_xlabel("SNN time step", fontsize=9)
    axes.set_ylabel("neuron", fontsize=9)
    return figure


def membranes(values: np.ndarray) -> Figure:
    """Histogram of membranes before firing, in units of the threshold; neurons that fire are highlighted."""
    edges = np.linspace(-2, 3, 51)  # 1 is an edge
    counts, _ = np.histogram(np.clip(values, -1.999, 2.999), edges)
    share = counts / max(values.size, 1)
    figure, axes = blank(2.3)
    colours = [SPIKES if edge >= 1 - 1e-9 else SECOND for edge in edges[:-1]]
    axes.bar(edges[:-1], share, width=np.diff(edges), align="edge", color=colours)
    axes.axvline(1, color=INK, linewidth=1)
    axes.text(1.04, axes.get_ylim()[1], "fires", fontsize=9, color=SPIKES, va="top")
    axes.set_xlabel("membrane before firing, in units of the threshold", fontsize=9)
    axes.set_xticks(range(-2, 4), labels=["≤ -2", "-1", "0", "1", "2", "≥ 3"])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    return figure


def rates(timesteps: Sequence[int], values: Sequence[float], index: int) -> Figure:
    """Firing rate from noise to picture, with one evaluation marked."""
    figure, axes = blank(2.0)
    places = range(1, len(values) + 1)
    axes.plot(places, values, color=SECOND, linewidth=1.6, marker="o" if len(values) <= 20 else None, markersize=3)
    axes.plot([index + 1], [values[index]], "o", color=SPIKES, markersize=7)
    axes.set_ylim(0, 1.15 * max(*values, 1e-6))
    axes.set_xlim(0.5, len(values) + 0.5)
    axes.set_xlabel("evaluation, from noise to picture", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    return figure


def growth(spiking: Sequence[float], twin: Sequence[float], total: int, unit: str) -> Figure:
    """Energy after each evaluation, of the spiking network and of the ANN."""
    figure, axes = blank(2.6)
    for values, colour, style, name in ((twin, SECOND, "--", "without spikes"), (spiking, SPIKES, "-", "spiking")):
        places = range(len(values) + 1)
        axes.plot(places, [0.0, *values], style, color=colour, linewidth=1.8)
        axes.annotate(name, (len(values), values[-1]), (-4, 4), textcoords="offset points", ha="right", va="bottom",
                      fontsize=9, color=colour)  # fmt: skip
    axes.set(xlim=(0, total), ylim=(0, 1.2 * max(*spiking, *twin, 1e-12)))
    axes.set_xlabel("evaluations", fontsize=9)
    axes.set_ylabel(unit, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def by_step(values: Sequence[float], twin: float, unit: str) -> Figure:
    """Energy if evaluations ended after 1, 2, ... SNN time steps, one bar each; the line is the ANN."""
    figure, axes = blank(2.3)
    places = range(1, len(values) + 1)
    axes.bar(places, values, color=SPIKES, width=0.7)
    axes.axhline(twin, color=SECOND, linewidth=1.4, linestyle="--")
    axes.set_ylim(0, 1.2 * max(*values, twin, 1e-12))
    axes.text(0.5, twin, " without spikes", fontsize=9, color=SECOND, va="bottom")
    axes.set_xlim(0.5, len(values) + 0.5)
    axes.set_xticks(range(1, len(values) + 1, -(-len(values) // 16)))
    axes.set_xlabel("SNN time steps of an evaluation", fontsize=9)
    axes.set_ylabel(unit, fontsize=9)
    return figure


def shares(names: Sequence[str], values: Sequence[float]) -> Figure:
    """Energy as a share of the ANN's, one bar each; the line is 100 %."""
    figure, axes = blank(0.8 + 0.35 * len(names))
    axes.barh(range(len(names)), values, color=[SPIKES if value <= 1 else QUIET for value in values], height=0.6)
    for i, value in enumerate(values):
        axes.text(value, i, f" {value:.0%}", va="center", fontsize=9, color=INK)
    axes.axvline(1, color=SECOND, linewidth=1.4, linestyle="--")
    axes.set(xlim=(0, 1.25 * max(1, *values)), ylim=(len(names) - 0.4, -0.6))
    axes.set_yticks(range(len(names)), labels=list(names))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("of the energy without spikes", fontsize=9)
    return figure
