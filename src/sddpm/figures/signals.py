"""Signals as curves."""

import math

from matplotlib.figure import Figure
from torch import Tensor

LENGTH_INCHES, HEIGHT_INCHES = 2.0, 1.1


def signal_grid(signals: Tensor, columns: int | None = None, limits: tuple[float, float] | None = None) -> Figure:
    """A small plot for each signal, with channels as lines of different colours, all on the same scale.

    Args:
        signals: [N, C, L].
        columns: plots per row; by default as square as possible.
        limits: limits of the vertical axis; by default those of the signals.
    """
    columns = columns or math.ceil(math.sqrt(len(signals)))
    rows = math.ceil(len(signals) / columns)
    low, high = limits or (float(signals.min()), float(signals.max()))
    figure = Figure(figsize=(columns * LENGTH_INCHES, rows * HEIGHT_INCHES), layout="constrained")
    plots = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for i, axes in enumerate(plots.flat):
        if i < len(signals):
            axes.plot(signals[i].T.numpy(), linewidth=1)
        axes.tick_params(labelsize=6)
        axes.set_xlim(0, signals.shape[2] - 1)
    margin = 0.05 * ((high - low) or 1.0)
    plots[0, 0].set_ylim(low - margin, high + margin)
    return figure
