"""The error of a converted network's spikes relative to the activations that they replace, layer by layer."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure


def conversion_figure(layers: Sequence[str], errors: Mapping[str, Sequence[float]]) -> Figure:
    """Plot the relative errors from the first layer of neurons to the last; save it with `figure.savefig(path)`.

    Args:
        layers: names, in the order of the network.
        errors: {label of a curve: relative error of each layer}.
    """
    figure = Figure(figsize=(9.6, 4.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    for label, values in errors.items():
        axes.plot(range(len(layers)), values, linewidth=1.2, marker=".", label=label)
    axes.set_xticks(range(len(layers)), layers, rotation=90, fontsize=8)
    axes.set_ylabel("relative error of the mean over T")
    axes.set_ylim(bottom=0)
    axes.grid(True, linewidth=0.3, alpha=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure
