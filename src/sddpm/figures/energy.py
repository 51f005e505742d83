"""Energy by layer, by diffusion step, relative to the ANN, and against the quality of the samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from sddpm.errors import UserError

SAVED, SPENT = "#1b6ca8", "#c1272d"
INK, ROW_HEIGHT = "#444444", 0.2


def energy_by_layer(
    names: Sequence[str],
    parts: Mapping[str, Sequence[float]],
    unit: str,
    colours: Mapping[str, str] | None = None,
    title: str = "",
) -> Figure:
    """One bar per layer, in the order of the network, stacked from the parts.

    Args:
        names: names of the layers.
        parts: {part of the energy: energy of each layer}.
        unit: unit of the energies.
        colours: colours of the parts; matplotlib's defaults for missing ones.

    Raises:
        UserError: the numbers of energies and names differ.
    """
    if not names or any(len(values) != len(names) for values in parts.values()):
        raise UserError(f"{len(names)} names need as many energies in each part")
    figure = Figure(figsize=(8.0, 1.2 + ROW_HEIGHT * len(names)), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    left = np.zeros(len(names))
    for part, values in parts.items():
        if np.any(values):
            axes.barh(range(len(names)), values, left=left, color=(colours or {}).get(part), label=part, height=0.78)
            left = left + np.asarray(values)
    axes.set_yticks(range(len(names)), labels=list(names), fontsize=8)
    axes.set(title=title, ylim=(len(names) - 0.4, -0.6), xlim=(0, 1.04 * max(float(left.max()), 1e-9)))
    axes.set_xlabel(f"energy in {unit}", fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(True, axis="x", linewidth=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.containers:  # no part, no legend: all energies can be 0
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def energy_by_diffusion_step(
    timesteps: Sequence[int],
    parts: Mapping[str, Sequence[float]],
    unit: str,
    colours: Mapping[str, str] | None = None,
    title: str = "",
) -> Figure:
    """The energy of each evaluation from noise to image, stacked from the parts.

    Args:
        timesteps: diffusion step of each evaluation.
        parts: {part of the energy: energy of each evaluation}.
        unit: unit of the energies.
        colours: colours of the parts; matplotlib's defaults for missing ones.

    Raises:
        UserError: the numbers of energies and diffusion steps differ.
    """
    if not timesteps or any(len(values) != len(timesteps) for values in parts.values()):
        raise UserError(f"{len(timesteps)} diffusion steps need as many energies in each part")
    figure = Figure(figsize=(8.0, 2.8), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    bottom = np.zeros(len(timesteps))
    for part, values in parts.items():
        if np.any(values):
            axes.bar(
                range(len(timesteps)), values, bottom=bottom, color=(colours or {}).get(part), label=part, width=1.0
            )
            bottom = bottom + np.asarray(values)
    every = -(-len(timesteps) // 10)
    axes.set_xticks(range(0, len(timesteps), every), labels=[str(t) for t in timesteps[::every]])
    axes.set_title(title)
    axes.set_xlabel("diffusion step t, from noise to image", fontsize=9)
    axes.set_ylabel(f"energy in {unit}", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.margins(x=0.005)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.containers:
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def relative_energy(names: Sequence[str], shares: Sequence[float], title: str = "") -> Figure:
    """The spiking network's energy as a share of its ANN twin's, one bar per cost model; the line is the ANN.

    Raises:
        UserError: the numbers of shares and names differ.
    """
    if not names or len(names) != len(shares):
        raise UserError(f"{len(names)} cost models for {len(shares)} shares")
    figure = Figure(figsize=(6.4, 1.0 + 0.32 * len(names)), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    colours = [SAVED if share <= 1 else SPENT for share in shares]
    axes.barh(range(len(names)), shares, color=colours, height=0.6)
    for i, share in enumerate(shares):
        axes.text(share, i, f" {share:.0%}", va="center", fontsize=8, color=INK)
    axes.axvline(1.0, color=INK, linewidth=1.0)
    axes.set_yticks(range(len(names)), labels=list(names), fontsize=8)
    axes.set(title=title, ylim=(len(names) - 0.5, -0.5))
    axes.set_xlabel("energy relative to the ANN twin", fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlim(0, 1.15 * max(1.0, *shares))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


@dataclass(frozen=True)
class ParetoPoint:
    """name: printed next to it; family: points of the same family are joined; energy; quality (lower is better);
    interval: of the quality, or None."""

    name: str
    family: str
    energy: float
    quality: float
    interval: tuple[float, float] | None = None


def pareto(points: Sequence[ParetoPoint], energy_label: str, quality_label: str, title: str = "") -> Figure:
    """Quality against energy, lower left is better; the Pareto front is drawn as a step line.

    Raises:
        UserError: no points.
    """
    if not points:
        raise UserError("a Pareto front needs at least one point")
    figure = Figure(figsize=(8.0, 5.0), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for i, family in enumerate(dict.fromkeys(point.family for point in points)):
        own = sorted((p for p in points if p.family == family), key=lambda p: p.energy)
        (line,) = axes.plot([p.energy for p in own], [p.quality for p in own], "o-", color=f"C{i}", markersize=5,
                            linewidth=0.8, label=family)  # fmt: skip
        for p in own:
            if p.interval is not None:
                axes.plot([p.energy, p.energy], p.interval, color=line.get_color(), linewidth=0.8, alpha=0.6)
            axes.annotate(p.name, (p.energy, p.quality), (4, 4), textcoords="offset points", fontsize=8, color=INK)
    front = pareto_front(points)
    axes.step([p.energy for p in front], [p.quality for p in front], where="post", color=INK, linewidth=1.0,
              linestyle=":", label="Pareto front")  # fmt: skip
    axes.set(title=title, xlabel=energy_label, ylabel=quality_label)
    axes.grid(True, linewidth=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return figure


def pareto_front(points: Sequence[ParetoPoint]) -> list[ParetoPoint]:
    """The points that no other equals or beats in both energy and quality, by energy."""
    front: list[ParetoPoint] = []
    for point in sorted(points, key=lambda p: (p.energy, p.quality)):
        if not front or point.quality < front[-1].quality:
            front.append(point)
    return front
