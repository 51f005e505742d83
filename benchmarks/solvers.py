"""Which solver draws the best pictures for how many evaluations of the network: FAD of the same seeds by each.

    python benchmarks/solvers.py MODEL --fad-weights FILE.pth --statistics FILE.npz [--samples 500] [--engine auto]
                                 [--runs ddim:50 sde-dpm++:50 ddim:50:eta=1 dpm++:25:v=0.98x ...] [--out FILE.json]

MODEL is a saved model of grey or colour images; weights and statistics are those of FSVAE's autoencoder for its data. A
run is SOLVER:STEPS, with eta and firing thresholds if they are to differ from 0 and the trained ones. Intervals are
95 %, of a bootstrap over seeds; differences are to the first run, of the same seeds, drawn again together. Few samples
score higher than many: compare within one table. Runs that FILE.json has are not sampled again.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from measuring import Rows

from sddpm import load_pipeline
from sddpm.cli.sample import parse_thresholds
from sddpm.data import unit_to_uint8
from sddpm.evaluation import read_statistics
from sddpm.evaluation.features.extractor import fad_extractor
from sddpm.guidance.bootstrap import draw_weights, estimate
from sddpm.guidance.distances import frechet_to

RUNS = ["ddim:50", "ddim:20", "dpm++:20", "dpm++:10", "unipc:20", "unipc:10", "sde-dpm++:50", "sde-dpm++:20", "ddpm:50"]
RESAMPLES = 300


def options_of(run: str) -> dict[str, Any]:
    """Arguments of the pipeline from "SOLVER:STEPS:eta=1:v=0.98x"."""
    solver, steps, *rest = run.split(":")
    options: dict[str, Any] = {"solver": solver, "num_inference_steps": int(steps)}
    for name, _, value in (part.partition("=") for part in rest):
        options |= {"eta": float(value)} if name == "eta" else {"v_threshold": parse_thresholds([value])}
    return options


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--fad-weights", type=Path, required=True)
    parser.add_argument("--statistics", type=Path, required=True)
    parser.add_argument("--runs", nargs="+", default=RUNS)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    pipeline, rows = load_pipeline(args.model), Rows(args.out)
    extractor = fad_extractor(args.fad_weights, pipeline.unet.config.in_channels)
    distance = frechet_to(read_statistics(args.statistics).gaussians["pool"])
    weights = draw_weights(args.samples, RESAMPLES, seed=0)
    print("| run | FAD, 95 % interval | less the first | seconds |\n|---|---|---|---|", flush=True)
    first = None
    for run in args.runs:
        key = {"model": str(args.model), "run": run, "samples": args.samples, "engine": args.engine}
        found = next((row for row in rows.rows if key.items() <= row.items()), None)
        if found is None:
            start = time.perf_counter()
            options = {"batch_size": args.batch_size, "engine": args.engine, "progress": False}
            images = torch.cat(
                [batch for _, batch in pipeline.stream(range(args.samples), **options, **options_of(run))]
            )
            seconds = time.perf_counter() - start
            features = extractor(unit_to_uint8(images))["fad"].double()
            rows.add({**key, "seconds": seconds, "features": features.tolist()})
            found = rows.rows[-1]
        features = torch.tensor(found["features"], dtype=torch.float64)
        value, resampled = distance(features), distance.weighted(features, weights)
        first = first or (value, resampled)
        low, high = estimate(value, resampled).interval
        change = estimate(value - first[0], resampled - first[1])
        difference = (
            "" if value is first[0] else f"{change.value:+.2f} [{change.interval[0]:+.2f}, {change.interval[1]:+.2f}]"
        )
        print(f"| {run} | {value:.2f} [{low:.2f}, {high:.2f}] | {difference} | {found['seconds']:.0f} |", flush=True)


if __name__ == "__main__":
    main()
