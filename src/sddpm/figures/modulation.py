"""The learned scales of temporal modulation, per layer and time step."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from sddpm.errors import UserError


def modulation_figure(scales: Mapping[str, Sequence[float]]) -> Figure:
    """One row per layer, from the first at the top, one column per SNN time step, with diverging colours around 1, the
    initial value; save it with `figure.savefig(path)`.

    Args:
        scales: {layer: p of each time step}, of equal lengths.

    Raises:
        UserError: no layers.
    """
    if not scales:
        raise UserError("this model has no temporal modulation, and therefore no scales to plot")
    names, rows = list(scales), [list(values) for values in scales.values()]
    steps = len(rows[0])
    figure = Figure(figsize=(3.2 + 0.62 * steps, 1.2 + 0.2 * len(rows)), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    largest = max(1e-3, *(abs(p - 1) for row in rows for p in row))
    picture = axes.imshow(rows, cmap="RdBu_r", vmin=1 - largest, vmax=1 + largest, aspect="auto")
    for i, row in enumerate(rows):
        for n, p in enumerate(row):
            ink = "white" if abs(p - 1) > 0.6 * largest else "black"
            axes.text(n, i, f"{p:.3f}", ha="center", va="center", fontsize=7.5, color=ink)
    axes.set_xticks(range(steps), labels=[str(n + 1) for n in range(steps)])
    axes.set_yticks(range(len(names)), labels=names, fontsize=7.5)
    axes.set(xlabel="SNN time step", title="learned scale p")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(picture, ax=axes, shrink=0.5)
    return figure
