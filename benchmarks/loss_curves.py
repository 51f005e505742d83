"""Checks that the fast training paths learn equally: losses of plain PyTorch, the fused kernels, and bf16.

    python benchmarks/loss_curves.py WORK [--config digits] [--set KEY=VALUE ...] [--steps 500] [--figure FILE.png]

Each trains the same network on the same images, times and noise. Plain PyTorch (float32, without our kernels and
channels last) runs a second time with other weights and noise, to show the spread between equal runs; and also in bf16.
Printed are mean losses over the last fifth, and paired differences to the first run with their standard errors. In the
folder WORK, stopped runs continue, and finished ones are not run again.
"""

import argparse
import os
from pathlib import Path
from unittest.mock import patch

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from measuring import run_benchmark
from trainings import trained

from sddpm.neurons.kernels import VARIABLE
from sddpm.training import load_config, read_metrics

PLAIN = {"precision": "float32", "channels_last": "false"}
RUNS = {
    "plain PyTorch, float32": ("eager", PLAIN),
    "fused kernels, float32": ("auto", {"precision": "float32"}),
    "fused kernels, bf16": ("auto", {"precision": "bf16"}),
    "plain PyTorch, another seed": ("eager", PLAIN | {"seed": "1"}),
    "plain PyTorch, bf16": ("eager", PLAIN | {"precision": "bf16"}),
}
BLOCK = 10  # number of steps averaged to one observation
WINDOW = 25  # number of steps averaged to one point of the curves


def losses(folder: Path, kernel: str, config: str, settings: list[str]) -> np.ndarray:
    """The loss of every step, [steps]. Raises `UserError` if the run in the folder has other settings."""
    with patch.dict(os.environ, {VARIABLE: kernel}):
        trained(load_config(config, settings), folder)
    return np.array([row["loss"] for row in read_metrics(folder)])


def blocks(values: np.ndarray, size: int) -> np.ndarray:
    return values[: len(values) // size * size].reshape(-1, size).mean(1)


def draw(found: dict[str, np.ndarray], title: str) -> Figure:
    figure = Figure(figsize=(11, 4), layout="constrained")
    curves, differences = figure.subplots(1, 2)
    first = next(iter(found.values()))
    for name, values in found.items():
        steps = WINDOW * (np.arange(len(blocks(values, WINDOW))) + 0.5)
        curves.plot(steps, blocks(values, WINDOW), label=name)
        differences.plot(steps, blocks(values - first, WINDOW))
    curves.set(xlabel="step", ylabel="loss", yscale="log", title=title)
    curves.yaxis.set_major_locator(LogLocator(subs=range(1, 10)))
    curves.yaxis.set_minor_locator(NullLocator())
    curves.yaxis.set_major_formatter("{x:g}")
    differences.set(xlabel="step", ylabel="loss minus that of plain PyTorch", title="differences")
    curves.legend()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--config", default="digits")
    parser.add_argument("--set", nargs="+", default=[], help="settings of the config, e.g. data.path=DATA/mnist")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--figure", type=Path)
    args = parser.parse_args()
    common = {"steps": args.steps, "log_every": 1, "checkpoint_every": 50, "sample_every": 0, "tensorboard": "false"}
    found = {}
    for number, (name, (kernel, settings)) in enumerate(RUNS.items()):
        options = [*args.set, *(f"train.{key}={value}" for key, value in {**common, **settings}.items())]
        values = found[name] = losses(args.work / str(number), kernel, args.config, options)
        last = values[-len(values) // 5 :]
        difference = blocks(last - next(iter(found.values()))[-len(last) :], min(BLOCK, len(last)))
        error = difference.std(ddof=1) / len(difference) ** 0.5 if len(difference) > 1 else float("nan")
        print(f"{name}: {last.mean():.5f}, difference {difference.mean():+.5f} +- {error:.5f}", flush=True)
        if args.figure is not None:
            draw(found, f"{args.config}, means of {WINDOW} steps").savefig(args.figure, dpi=110)


if __name__ == "__main__":
    run_benchmark(main)
