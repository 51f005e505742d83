"""Plots the loss of several runs in one picture.

python examples/loss_curves.py OUT.png RUN [RUN ...]
"""

import sys
from pathlib import Path

from sddpm.figures.curves import loss_curve
from sddpm.training import read_metrics


def main(out: str, *runs: str) -> None:
    rows = {Path(run).name: read_metrics(run) for run in runs}
    loss_curve({name: ([r["step"] for r in run], [r["loss"] for r in run]) for name, run in rows.items()}).savefig(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
