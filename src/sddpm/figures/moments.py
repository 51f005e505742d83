"""A model's moments, and the resulting noise of its reverse steps."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure


def moments_figure(
    h: Sequence[float],
    standard_error: Sequence[float],
    timesteps: Sequence[int],
    deviations: Mapping[str, Sequence[float]],
) -> Figure:
    """Two panels over the diffusion step t: 1 - h(t) with a band of two standard errors, and the standard deviation of
    the noise added by each step of a trajectory, for several rules; save it with `figure.savefig(path)`.

    Args:
        h: E ||epsilon(x_t, t)||^2 / d for t = 0 .. N - 1.
        standard_error: standard error of each.
        timesteps: start of each step of the trajectory.
        deviations: {rule: standard deviation of each step}.
    """
    figure = Figure(figsize=(9.6, 3.8), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = range(len(h))
    left.plot(steps, [1 - value for value in h], linewidth=1.2)
    low = [1 - value - 2 * error for value, error in zip(h, standard_error, strict=True)]
    high = [1 - value + 2 * error for value, error in zip(h, standard_error, strict=True)]
    left.fill_between(steps, low, high, alpha=0.3, linewidth=0, label="± 2 standard errors")
    left.set(xlabel="diffusion step t", ylabel="1 - h(t)", yscale="log", ylim=(1e-5, 1.2))
    left.legend(frameon=False)
    for rule, values in deviations.items():
        right.plot(timesteps, values, linewidth=1.2, marker=".", markersize=3, label=rule)
    right.set(xlabel="diffusion step t", xscale="log", yscale="log")
    right.set_ylabel(f"standard deviation of each of {len(timesteps)} steps")
    right.xaxis.set_major_formatter("{x:g}")
    right.yaxis.set_major_formatter("{x:g}")
    right.yaxis.set_minor_formatter("")
    right.legend(frameon=False)
    for axes in (left, right):
        axes.grid(True, which="both", linewidth=0.3, alpha=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    return figure
