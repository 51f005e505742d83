"""Plots of spikes: rasters, rates by layer, time step and diffusion step, membranes against the threshold, channels."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sddpm.errors import UserError

INK, SPIKE, DEAD, SATURATED, LINE = "#444444", "#1b6ca8", "#9a9a9a", "#c1272d", "#c1272d"
ROW_HEIGHT, MOST_LABELS = 0.2, 60


def raster(spikes: np.ndarray, T: int, timesteps: Sequence[int], title: str = "") -> Figure:
    """Spikes of some neurons of a layer, with time to the right: every column is an SNN time step, T per diffusion
    step.

    Args:
        spikes: bool [N, T x diffusion steps].
        T: SNN time steps per evaluation.
        timesteps: the diffusion step of each evaluation, from noise to image.
        title: the layer.

    Raises:
        UserError: the number of columns is not T times the number of diffusion steps.
    """
    if spikes.ndim != 2 or spikes.shape[1] != T * len(timesteps):
        raise UserError(
            f"a raster of {len(timesteps)} diffusion steps needs [N, {T * len(timesteps)}], got {spikes.shape}"
        )
    figure = Figure(figsize=(9.0, 0.9 + 0.035 * len(spikes)), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(spikes, cmap="Greys", aspect="auto", interpolation="nearest", vmin=0, vmax=1)
    for i in range(1, len(timesteps)):
        axes.axvline(i * T - 0.5, color=SPIKE, linewidth=0.3, alpha=0.6)
    _diffusion_ticks(axes, [(i + 0.5) * T - 0.5 for i in range(len(timesteps))], timesteps)
    axes.set(title=title, yticks=[])
    axes.set_ylabel("neuron", fontsize=9)
    return figure


def rate_map(names: Sequence[str], rates: np.ndarray, title: str = "") -> Figure:
    """Firing rate of each layer (down) at each SNN time step (across), with the numbers in the cells.

    Args:
        names: names of the layers, in the order of the network.
        rates: [layers, T], from 0 to 1.

    Raises:
        UserError: the numbers of rates and names differ.
    """
    _check(names, rates)
    T = rates.shape[1]
    figure, axes = _tall(names, 3.2 + 0.55 * T, title)
    top = max(float(rates.max()), 1e-9)
    image = axes.imshow(rates, cmap="Blues", aspect="auto", vmin=0, vmax=top)
    if T <= 16:
        for (i, n), rate in np.ndenumerate(rates):
            colour = "white" if rate > 0.55 * top else "black"
            axes.text(n, i, f"{rate:.2f}", ha="center", va="center", fontsize=7.5, color=colour)
    axes.set_xticks(range(T), labels=[str(n + 1) for n in range(T)], fontsize=8)
    axes.set_xlabel("SNN time step", fontsize=9)
    _colour_bar(figure, image, axes, "firing rate")
    return figure


def rate_by_diffusion_step(
    names: Sequence[str], timesteps: Sequence[int], rates: np.ndarray, title: str = ""
) -> Figure:
    """Firing rate of each layer against the diffusion step; the upper panel shows that of all neurons.

    Args:
        names: names of the layers, then "all" as the last.
        timesteps: diffusion step of each evaluation, from noise to image.
        rates: [layers + 1, evaluations], the last row for all neurons.

    Raises:
        UserError: the numbers of rates and names or steps differ.
    """
    _check(names, rates)
    if rates.shape[1] != len(timesteps):
        raise UserError(f"{len(timesteps)} diffusion steps need as many rates, not {rates.shape[1]}")
    figure = Figure(figsize=(9.0, 2.6 + ROW_HEIGHT * len(names)), dpi=120, layout="constrained")
    above, axes = figure.subplots(2, 1, height_ratios=[1.3, ROW_HEIGHT * len(names)], sharex=True)
    above.plot(rates[-1], color=SPIKE, linewidth=1.6, marker="." if len(timesteps) < 3 else None)
    above.set(title=title, ylim=(0, 1.15 * max(float(rates[-1].max()), 1e-9)))
    above.set_ylabel("all neurons", fontsize=9)
    above.tick_params(labelsize=8)
    above.grid(True, linewidth=0.3)
    above.spines[["top", "right"]].set_visible(False)
    image = axes.imshow(rates[:-1], cmap="Blues", aspect="auto", vmin=0, interpolation="nearest")
    _layer_ticks(axes, names[:-1])
    _diffusion_ticks(axes, list(range(len(timesteps))), timesteps)
    _colour_bar(figure, image, axes, "firing rate")
    return figure


def membrane_histograms(names: Sequence[str], edges: np.ndarray, counts: np.ndarray, title: str = "") -> Figure:
    """Histograms of the membranes of each layer before firing, relative to the threshold: darker means more.

    Args:
        names: names of the layers.
        edges: edges of the bins, in units of the threshold, [bins + 1]; the outer bins contain everything beyond, and
            are printed as numbers.
        counts: [layers, bins].

    Raises:
        UserError: the numbers of counts and names differ.
    """
    _check(names, counts)
    figure, axes = _tall(names, 8.0, title)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    left, right = float(edges[1]), float(edges[-2])
    extent = (left, right, len(names) - 0.5, -0.5)
    image = axes.imshow(share[:, 1:-1], cmap="Blues", aspect="auto", extent=extent, interpolation="nearest", vmin=0)
    for i, (below, beyond) in enumerate(share[:, [0, -1]]):
        axes.text(left, i, f" {below:.0%}", va="center", fontsize=7.5, color=INK)
        axes.text(right, i, f"{beyond:.0%} ", va="center", ha="right", fontsize=7.5, color=INK)
    axes.axvline(1.0, color=LINE, linewidth=1.2)
    axes.text(1.0, -0.6, "threshold", color=LINE, fontsize=8, ha="center", va="bottom")
    axes.set_xlabel("membrane before firing, in units of the threshold (numbers: share further out)", fontsize=9)
    bar = _colour_bar(figure, image, axes, "share of neurons and time steps in a bin")
    bar.ax.yaxis.set_major_formatter("{x:.1%}")
    return figure


def channel_rates(
    names: Sequence[str], rates: Sequence[np.ndarray], title: str = "", saturated: float = 0.99
) -> Figure:
    """Firing rate of every channel, one dot each, layer by layer; dead and saturated ones are highlighted and counted.

    Args:
        names: names of the layers.
        rates: rates [C] of each layer.
        saturated: rate from which a channel counts as always firing.

    Raises:
        UserError: the numbers of rates and names differ.
    """
    if len(names) != len(rates) or not names:
        raise UserError(f"{len(names)} names need as many layers of channels, not {len(rates)}")
    figure, axes = _tall(names, 8.0, title)
    for i, each in enumerate(rates):
        spread = i + np.linspace(-0.28, 0.28, len(each))
        kinds = [(each == 0, DEAD), ((each > 0) & (each < saturated), SPIKE), (each >= saturated, SATURATED)]
        for chosen, colour in kinds:
            axes.plot(each[chosen], spread[chosen], ".", color=colour, markersize=2.2, alpha=0.8)
        dead, always = int((each == 0).sum()), int((each >= saturated).sum())
        if dead:
            axes.text(-0.015, i, f"{dead} dead", ha="right", va="center", fontsize=7.5, color=DEAD)
        if always:
            axes.text(1.015, i, f"{always} always", ha="left", va="center", fontsize=7.5, color=SATURATED)
    axes.set(xlim=(-0.14, 1.14), ylim=(len(names) - 0.4, -0.6))
    axes.set_xlabel("firing rate of a channel", fontsize=9)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(True, axis="x", linewidth=0.3)
    return figure


def _check(names: Sequence[str], rows: np.ndarray) -> None:
    if rows.ndim != 2 or len(rows) != len(names) or not len(names):
        raise UserError(f"{len(names)} names need as many rows, got the shape {rows.shape}")


def _tall(names: Sequence[str], width: float, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, 1.1 + ROW_HEIGHT * len(names)), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=10)
    _layer_ticks(axes, names)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="x", labelsize=8)
    return figure, axes


def _layer_ticks(axes: Axes, names: Sequence[str]) -> None:
    every = -(-len(names) // MOST_LABELS)
    axes.set_yticks(range(0, len(names), every), labels=list(names[::every]), fontsize=8)


def _diffusion_ticks(axes: Axes, places: Sequence[float], timesteps: Sequence[int]) -> None:
    every = -(-len(timesteps) // 10)
    axes.set_xticks(places[::every], labels=[str(t) for t in timesteps[::every]], fontsize=8)
    axes.set_xlabel("diffusion step t, from noise to image", fontsize=9)


def _colour_bar(figure: Figure, image, axes: Axes, label: str):
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, aspect=30)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)  # type: ignore[operator]
    return bar
