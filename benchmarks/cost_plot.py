"""Cost against time steps, batch size and resolution, from the rows written by the speed benchmarks.

    python benchmarks/cost_plot.py FIGURE.png --training FILE.json --sampling FILE.json [--channels 32]
                                   [--T 4] [--batch 8] [--size 32]

Along each axis the other two have the values of the options. Rows with different threads are not distinguished.
"""

import argparse
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from measuring import Rows

AXES = {"T": "SNN time steps", "batch": "images per batch", "size": "pixels per side"}


def draw(axes: Axes, rows: list[dict[str, Any]], along: str, fixed: dict[str, int]) -> None:
    rows = [row for row in rows if "seconds" in row]  # not rows with memory only
    chosen = [row for row in rows if all(row[name] == value for name, value in fixed.items() if name != along)]
    chosen.sort(key=lambda row: row[along])
    for name in dict.fromkeys(name for row in chosen for name in row["seconds"]):
        found = [(row[along], row["seconds"][name]) for row in chosen if name in row["seconds"]]
        axes.plot(*zip(*found, strict=True), marker="o", markersize=4, label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")
    ticks = [row[along] for row in chosen]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel(AXES[along])
    axes.grid(True, linewidth=0.3, alpha=0.6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", type=Path)
    parser.add_argument("--training", type=Path, required=True)
    parser.add_argument("--sampling", type=Path, required=True)
    for name, value in {"channels": 32, "T": 4, "batch": 8, "size": 32}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    fixed = {name: getattr(args, name) for name in ("channels", "T", "batch", "size")}
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    grid = figure.subplots(2, len(AXES), sharey="row")
    sources = {"a training step, s": args.training, "an evaluation in sampling, s": args.sampling}
    for line, (label, path) in zip(grid, sources.items(), strict=True):
        for axes, along in zip(line, AXES, strict=True):
            draw(axes, Rows(path).rows, along, fixed)
        line[0].set_ylabel(label)
        line[0].legend()
    figure.suptitle(", ".join(f"{name} = {value}" for name, value in fixed.items()) + ", except on its own axis")
    figure.savefig(args.figure, dpi=110)


if __name__ == "__main__":
    main()
