"""Quality and energy of a picture over evaluations: `benchmarks/results/few.json`.

    python benchmarks/few.py DATA WORK RESULTS CELL [CELL ...] [--samples 10000] [--engine fast]
                             [--fad-weights FILE] [--fad-statistics FILE]

A CELL is MODEL, with its default sampler, or MODEL:key=value[:key=value ...] with solver, steps, sampler, x0,
eta or timesteps (with commas), such as fashion-mnist:solver=unipc:steps=10:x0=1.02. DATA: folder with fashion-mnist,
mnist and fad (FSVAE's autoencoders and statistics). Each cell is measured by two commands, whose JSON is kept in WORK:
a stopped measurement continues when started again. Only a command with other options or weights is run again.

    sddpm evaluate MODEL ... --protocol fsddim --metric fad,kad --interval     (FAD and KAD against the test images)
    sddpm energy MODEL ...                                                     (of a picture, by the model 45nm)

RESULTS/few.json is updated after every cell: [{"model", "T", "evaluations", "fad": [value, low, high], "kad": [...],
"mj": millijoules of a picture, "sampler", "samples"}, ...]; rows of other cells are kept.
"""

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import kept_json, run_benchmark
from paired_kad import data_set

from sddpm import load_pipeline
from sddpm.files import atomic_path

OPTIONS = {"solver": "--solver", "steps": "--steps", "sampler": "--sampler", "x0": "--x0-scale", "eta": "--eta"}
OPTIONS |= {"timesteps": "--timesteps"}
COST = "45nm"


@dataclass(frozen=True)
class Cell:
    """A model and how it samples: {key of OPTIONS: value}."""

    model: str
    sampler: dict[str, str]

    @classmethod
    def read(cls, text: str) -> "Cell":
        model, *parts = text.split(":")
        sampler = dict(part.split("=", 1) for part in parts)
        if unknown := sampler.keys() - OPTIONS:
            raise SystemExit(f"{text}: unknown {', '.join(unknown)}; choose from {', '.join(OPTIONS)}")
        return cls(model, sampler)

    def arguments(self) -> list[str]:
        return [word for key, value in self.sampler.items() for word in (OPTIONS[key], value)]

    @property
    def name(self) -> str:
        """The name of the folder for its files."""
        parts = [Path(self.model).name, *(f"{key}={value}" for key, value in self.sampler.items())]
        return re.sub(r"[^\w.+=-]+", "_", "-".join(parts))

    def about(self) -> dict[str, Any]:
        """The keys that identify its row."""
        return {"model": Path(self.model).name, "sampler": " ".join(self.arguments()) or "the model's own"}


def measure(cell: Cell, args: argparse.Namespace) -> dict[str, Any]:
    """The row of a cell."""
    name = data_set(cell.model)
    short = name.split("-")[0]
    weights = args.fad_weights or args.data / "fad" / f"{short}_64.pth"
    statistics = args.fad_statistics or args.data / "fad" / f"{short}_test_64.npz"
    work = args.work / f"{cell.name}-{args.samples}"
    against = ["--reference", name, "--data", args.data / name, "--split", "test", "--protocol", "fsddim"]
    against += ["--metric", "fad,kad", "--interval", "--fad-weights", weights, "--fad-statistics", statistics]
    against += ["--work", args.work / "cache"]
    against += ["--samples", args.samples, "--engine", args.engine, "--grid", work / "grid.png"]
    found = kept_json(work / "evaluation.json", "--out", "evaluate", cell.model, *against, *cell.arguments())
    energy = kept_json(work / "energy.json", "--json", "energy", cell.model, *cell.arguments())
    scores = {name: [each["value"], *each["interval_95"]] for name, each in found["metrics"].items()}
    return cell.about() | {
        "T": int(load_pipeline(cell.model).unet.config.get("T", 1)),
        "evaluations": energy["evaluations_per_sample"],
        **scores,
        "mj": energy["energy_per_sample_pj"][COST] / 1e9,
        "firing_rate": energy["firing_rate"],
        "samples": args.samples,
    }


def write(path: Path, row: dict[str, Any]) -> None:
    """Write a row, replacing one with the same model, sampler and number of samples."""
    identity = ("model", "sampler", "samples")
    rows = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    rows = [each for each in rows if any(each[key] != row[key] for key in identity)] + [row]
    rows.sort(key=lambda each: (each["model"], each["evaluations"], each["fad"][0]))
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("cells", nargs="+", type=Cell.read, metavar="CELL")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--engine", default="fast")
    parser.add_argument("--fad-weights", type=Path)
    parser.add_argument("--fad-statistics", type=Path)
    args = parser.parse_args()
    for cell in args.cells:
        row = measure(cell, args)
        write(args.results / "few.json", row)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    run_benchmark(main)
