"""The quality of solvers for numbers of network evaluations: FAD for the same seeds.

    python benchmarks/solvers.py MODEL --fad-weights FILE.pth --statistics FILE.npz [--samples 500]
                                 [--first-seed 0] [--engine auto] [--out F.json]
                                 [--runs ddim:50 sde-dpm++:50:x0=1.01 ddim:50:eta=1 dpm++:25:v=0.98x ...]

MODEL is a saved model of grey or colour images; weights and statistics are of FSVAE's autoencoder for its data. A run
is SOLVER:STEPS, optionally with eta, firing thresholds and x0_scale instead of 0 and the model's own. Intervals are 95
%, from a bootstrap over seeds; differences are to the first run, with the same seeds, resampled together; the variance
is that of the features, relative to the test images'. Few samples have a higher FAD than many: compare within one
table. Runs in F.json are not sampled again.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from measuring import Rows
from scores import PairedFad

from sddpm import load_pipeline
from sddpm.cli.options import parse_thresholds
from sddpm.data import unit_to_uint8

RUNS = ["ddim:50", "ddim:20", "dpm++:20", "dpm++:10", "unipc:20", "unipc:10", "sde-dpm++:50", "sde-dpm++:20", "ddpm:50"]
NAMES = {"eta": "eta", "v": "v_threshold", "x0": "x0_scale"}
RESAMPLES = 300


def options_of(run: str) -> dict[str, Any]:
    """Arguments of the pipeline from "SOLVER:STEPS:eta=1:v=0.98x:x0=1.01"."""
    solver, steps, *rest = run.split(":")
    options: dict[str, Any] = {"solver": solver, "num_inference_steps": int(steps)}
    for name, _, value in (part.partition("=") for part in rest):
        options |= {NAMES[name]: parse_thresholds([value]) if name == "v" else float(value)}
    return options


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--fad-weights", type=Path, required=True)
    parser.add_argument("--statistics", type=Path, required=True)
    parser.add_argument("--runs", nargs="+", default=RUNS)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument(
        "--first-seed",
        type=int,
        default=0,
        help="first seed of the samples; use different ones for choosing and for the verdict",
    )
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    pipeline, rows = load_pipeline(args.model), Rows(args.out)
    counts = {"channels": pipeline.unet.config.in_channels, "samples": args.samples, "resamples": RESAMPLES}
    fad = PairedFad(args.fad_weights, args.statistics, **counts)
    print("| run | FAD, 95 % interval | minus the first | variance | seconds |\n|---|---|---|---|---|", flush=True)
    first = None
    for run in args.runs:
        key = {"model": str(args.model), "run": run, "samples": args.samples, "engine": args.engine}
        key |= {"first_seed": args.first_seed}
        found = next((row for row in rows.rows if key.items() <= row.items()), None)
        if found is None:
            start = time.perf_counter()
            options = {"batch_size": args.batch_size, "engine": args.engine, "progress": False}
            seeds = range(args.first_seed, args.first_seed + args.samples)
            images = torch.cat([batch for _, batch in pipeline.stream(seeds, **options, **options_of(run))])
            seconds = time.perf_counter() - start
            rows.add({**key, "seconds": seconds, "features": fad.features(unit_to_uint8(images)).tolist()})
            found = rows.rows[-1]
        features = torch.tensor(found["features"], dtype=torch.float64)
        difference = "" if first is None else as_text(fad.of(features, less=first), "+")
        first = features if first is None else first
        cells = [run, as_text(fad.of(features)), difference, f"{fad.spread(features):.3f}", f"{found['seconds']:.0f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


def as_text(estimate: Any, sign: str = "") -> str:
    low, high = estimate.interval
    return f"{estimate.value:{sign}.2f} [{low:{sign}.2f}, {high:{sign}.2f}]"


if __name__ == "__main__":
    main()
