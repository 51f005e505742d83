"""Quality against training images: KID and FID in 768 features for the long runs' checkpoints, every two hours.

    python benchmarks/cifar10_curve.py DATA RUNS RESULTS [--hours 2] [--samples 2000]

DATA: folder with cifar10 and the 2015 Inception weights. RUNS: the folder runs/ of long_run.sh. RESULTS gets
cifar10_curve.json and cifar10_curve.png, updated after every point; existing points are not measured again. Samples are
drawn by DPM-Solver++ with 20 steps and the averaged weights, each of the class drawn from its seed, and compared with
the test images. Images and hours of a stage are counted from the start of its first predecessor.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from measuring import Row, Rows
from safetensors.torch import load_file
from scores import inception_in

from sddpm.evaluation import EvaluationSettings, SamplingSettings, evaluate
from sddpm.files import atomic_path
from sddpm.training import load_config
from sddpm.training.checkpoint import list_checkpoints
from sddpm.training.state import build_model, make_pipeline

CHAINS = {"spiking": ("leg-a-quantized", "leg-a", "leg-b"), "twin": ("twin",)}  # stages that continue one another
METRICS = {"fid": "FID-768", "kid": "KID-768"}


@dataclass(frozen=True)
class Point:
    """A checkpoint of a stage: images and hours of training since the beginning of its chain."""

    chain: str
    stage: str
    checkpoint: Path
    images: int
    hours: float


def points_of(chain: str, runs: Path, hours: float) -> list[Point]:
    """The checkpoints to measure: the first one after every interval of training hours, and the last of each stage."""
    found: list[Point] = []
    images_before, hours_before = 0, 0.0
    for stage in CHAINS[chain]:
        there = []
        for checkpoint in list_checkpoints(runs / stage):
            state = json.loads((checkpoint / "state.json").read_text())
            images = images_before + state["step"] * state["config"]["train"]["batch_size"]
            there.append(Point(chain, stage, checkpoint, images, hours_before + state["seconds"] / 3600))
        if not there:
            break
        before = hours_before
        for point in there:
            if point.hours // hours > before // hours or point is there[-1]:
                found.append(point)
            before = point.hours
        images_before, hours_before = there[-1].images, there[-1].hours
    return found


def save_averaged(checkpoint: Path, out: Path) -> None:
    """Write the averaged weights of a checkpoint as a model to `out`."""
    if out.is_dir():
        return
    weights = load_file(checkpoint / "ema.safetensors")
    config = load_config(checkpoint.parents[1] / "config.yaml")
    model = build_model(config, config.data.channels or 3)
    model.load_state_dict(weights)
    with atomic_path(out) as temporary:
        make_pipeline(model.eval(), config.diffusion).save_pretrained(temporary)


def measured(point: Point, args: argparse.Namespace) -> Row:
    """The scores of a point, each as [value, low, high]."""
    work = args.runs.parent / "curve"
    model = work / "models" / f"{point.stage}-{point.checkpoint.name}"
    save_averaged(point.checkpoint, model)
    evaluation = evaluate(
        EvaluationSettings(
            source=str(model),
            reference="cifar10",
            data=str(args.data / "cifar10"),
            metrics=tuple(METRICS),
            samples=args.samples,
            split="test",
            dim=args.dim,
            limit_reference=args.references,
            sampling=SamplingSettings(num_inference_steps=20, solver="dpm++"),
            inception=inception_in(args.data),
            interval=True,
            copies=False,
            work=work,
        )
    )
    assert evaluation is not None
    scores = {each.metric.name: each.score for each in evaluation.measurements}
    return {f"{name}{args.dim}": [score.value, *score.interval] for name, score in scores.items()}


def draw(rows: list[Row], dim: int) -> Any:
    """One panel per metric and one line per chain, with the intervals of the samples."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, 2), METRICS.items(), strict=True):
        for chain in CHAINS:
            found = sorted((row for row in rows if row["chain"] == chain), key=lambda row: row["images"])
            if not found:
                continue
            values = [row[f"{name}{dim}"] for row in found]
            errors = [[v - low for v, low, _ in values], [high - v for v, _, high in values]]
            images = [row["images"] / 1e6 for row in found]
            axes.errorbar(images, [v[0] for v in values], errors, marker="o", capsize=3, label=chain)
        axes.set(xlabel="million images seen", ylabel=title, yscale="log")
        axes.legend()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--hours", type=float, default=2.0, help="hours of training between points")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--references", type=int, help="test images [all]")
    parser.add_argument("--dim", type=int, default=768, help="Inception features")
    args = parser.parse_args()
    args.results.mkdir(parents=True, exist_ok=True)
    rows = Rows(args.results / "cifar10_curve.json")
    settings = {"samples": args.samples, "references": args.references, "dim": args.dim}
    for point in [point for chain in CHAINS for point in points_of(chain, args.runs, args.hours)]:
        key = {"chain": point.chain, "stage": point.stage, "images": point.images, **settings}
        if rows.has(**key):
            continue
        rows.add(key | {"hours": round(point.hours, 2)} | measured(point, args))
        with atomic_path(args.results / "cifar10_curve.png") as temporary:
            alike = [row for row in rows.rows if settings.items() <= row.items()]
            draw(alike, args.dim).savefig(temporary, format="png", dpi=150)
        print(json.dumps(rows.rows[-1]), flush=True)


if __name__ == "__main__":
    main()
