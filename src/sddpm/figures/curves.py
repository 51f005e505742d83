"""The loss over the steps of one or several runs."""

from collections.abc import Iterable, Mapping, Sequence

from matplotlib.figure import Figure

from sddpm.errors import UserError


def loss_curve(runs: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> Figure:
    """Plot loss against optimiser step, one line per run; save it with `figure.savefig(path)`. An axis is logarithmic
    if its range is large enough for ticks.

    Args:
        runs: {name: (steps, losses)}, each step 1 or more, each loss above 0.

    Raises:
        UserError: no runs, or different numbers of steps and losses.
    """
    if not runs:
        raise UserError("a loss curve needs at least one run")
    figure = Figure(figsize=(6.4, 4.0), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for name, (steps, losses) in runs.items():
        if len(steps) != len(losses):
            raise UserError(f"{name}: {len(steps)} steps, but {len(losses)} losses")
        axes.plot(steps, losses, linewidth=1.2, label=name, marker="." if len(steps) < 3 else None)
    axes.set(xlabel="optimiser step", ylabel="loss")
    if _ratio(steps for steps, _ in runs.values()) >= 10:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter("")
    if _ratio(losses for _, losses in runs.values()) >= 2:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter("{x:g}")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(True, which="both", linewidth=0.3, alpha=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def _ratio(columns: Iterable[Sequence[float]]) -> float:
    """The ratio of the largest to the smallest number."""
    numbers = [number for column in columns for number in column]
    return max(numbers) / min(numbers) if numbers else 1.0
