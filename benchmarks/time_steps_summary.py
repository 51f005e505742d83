"""Table and picture of `time_steps.py`: FAD against the energy of a picture for every T.

    python benchmarks/time_steps_summary.py RESULTS OUT [--samples 2000]

RESULTS: its few.json and time_steps.json. OUT gets time_steps.md and time_steps.png. Numbers are means over the
trainings of a cell; a range runs from the lowest to the highest of them.
"""

import argparse
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from measuring import run_benchmark

from sddpm.errors import UserError
from sddpm.figures.energy import ParetoPoint, pareto, pareto_front
from sddpm.files import atomic_path

RUN = re.compile(r"fashion-T(\d+)-\d+(-four)?")


@dataclass(frozen=True)
class Summary:
    """One T and number of evaluations, over its trainings."""

    T: int
    evaluations: int
    fads: tuple[float, ...]
    kads: tuple[float, ...]
    firing_rate: float
    mj: float

    @property
    def point(self) -> ParetoPoint:
        name, family = f"{self.evaluations}", f"T = {self.T}"
        return ParetoPoint(name, family, self.mj, mean(self.fads), (min(self.fads), max(self.fads)))


def summaries(rows: Iterable[dict[str, Any]], samples: int) -> list[Summary]:
    """The cells of the study among the rows of few.json, by T and evaluations: one row of each training.

    Raises:
        UserError: two rows of one training, with different samplers.
    """
    cells: dict[tuple[int, int], dict[str, dict[str, Any]]] = {}
    for row in rows:
        if RUN.fullmatch(row["model"]) and row["samples"] == samples:
            other = cells.setdefault((row["T"], row["evaluations"]), {}).setdefault(row["model"], row)
            if other is not row:
                raise UserError(
                    f"few.json has two rows of {row['model']} with {row['evaluations']} evaluations: delete that of"
                    f" {other['sampler']!r} or that of {row['sampler']!r}"
                )
    return [
        Summary(
            *key,
            tuple(row["fad"][0] for row in found.values()),
            tuple(row["kad"][0] for row in found.values()),
            mean(row["firing_rate"] for row in found.values()),
            mean(row["mj"] for row in found.values()),
        )
        for key, found in sorted(cells.items())
    ]


def table(found: list[Summary], milliseconds: dict[str, float]) -> str:
    """The Markdown table, with a mark for the cells on the Pareto front."""
    front = pareto_front([each.point for each in found])
    lines = [
        "| T | evaluations | FAD, mean (of each training) | KAD | firing rate | mJ a picture | ms a picture | front |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in found:
        fads = ", ".join(f"{fad:.2f}" for fad in each.fads)
        took = milliseconds.get(f"T={each.T}")
        ms = "" if took is None else f"{took * each.evaluations:.0f}"
        lines.append(
            f"| {each.T} | {each.evaluations} | {mean(each.fads):.2f} ({fads}) | {mean(each.kads):.2f} "
            f"| {each.firing_rate:.3f} | {each.mj:.2f} | {ms} | {'yes' if each.point in front else ''} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--samples", type=int, default=2000, help="cells of so many samples")
    args = parser.parse_args()
    found = summaries(json.loads((args.results / "few.json").read_text(encoding="utf-8")), args.samples)
    if not found:
        raise UserError(f"{args.results / 'few.json'} has no cell of time_steps.py with {args.samples} samples")
    times = args.results / "time_steps.json"
    took = json.loads(times.read_text(encoding="utf-8")) if times.is_file() else {}
    args.out.mkdir(parents=True, exist_ok=True)
    with atomic_path(args.out / "time_steps.md") as temporary:
        temporary.write_text(table(found, took.get("milliseconds_per_image_and_evaluation", {})), encoding="utf-8")
    with atomic_path(args.out / "time_steps.png") as temporary:
        figure = pareto([each.point for each in found], "energy of a picture in mJ (45nm)", "FAD (lower is better)")
        figure.savefig(temporary)


if __name__ == "__main__":
    run_benchmark(main)
