"""How many SNN time steps: the same weights trained on for T = 1, 2, 3, 4 and 8 with equal images, then measured.

    python benchmarks/time_steps.py DATA WORK RESULTS [--T 1 2 3 4 8] [--distilled 2 4] [--seeds 0 1]
                                    [--quantized-steps 200] [--spike-steps 150] [--distil-steps 150]
                                    [--samples 2000] [--only-train]

DATA: folder with fashion-mnist and fad (FSVAE's autoencoder and statistics). Every T and seed has three stages:

1. The packaged fashion-mnist as a network with quantised activations (`quantized_from`), trained on with T levels.
2. Converted to T time steps, trained on in spikes.
3. For `--distilled` only: distilled to four evaluations, with the network of stage 2 as its teacher.

Networks of stage 2 are sampled with 10 and 50 evaluations, those of stage 3 with 4. With 50 evaluations the x0_scale is
that of the packaged model; else each T has the one of students.SCALES with the least KAD of 500 samples of other seeds,
against training images, for the first of the trainings. FAD, KAD, energy and firing rate are rows of RESULTS/few.json,
as in few.py; milliseconds per image and evaluation are in RESULTS/time_steps.json, measured in turn. A stopped
measurement continues when started again, with the same numbers of steps: runs of others are refused. At most one
process for one WORK.
"""

import argparse
import json
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from few import Cell, measure, write
from measuring import medians, run_benchmark
from step_seconds import with_train
from students import START, best_scale, quantized_config, quantized_from, saved, start_config
from trainings import check_steps, trained

from sddpm import load_config, load_pipeline
from sddpm.conversion.ann import convert_ann
from sddpm.conversion.training import continued_config
from sddpm.files import atomic_path
from sddpm.training.distillation import student_config

# Found for the packaged model by `sddpm guide --search sampler --evaluations 10`.
TEN = {"solver": "dpm++", "timesteps": "999,899,824,699,599,499,399,299,174,49"}
FIFTY = {"solver": "sde-dpm++", "steps": "50", "x0": "1.008"}
COMMON = (
    "train.compile=false",
    "train.warmup_steps=20",
    "train.ema_decay=0.97",
    "train.teacher=null",
    "train.sample_every=0",
    "train.log_every=10",
    "train.checkpoint_every=50",
    "train.tensorboard=false",
)


def stages(T: int, seed: int, args: Namespace) -> dict[str, tuple[Path, int]]:
    """The runs of a T and seed, each with its number of steps. (The folders do not name the steps.)"""
    runs = args.work / "runs"
    found = {
        "quantized": (runs / f"fashion-quantized-{T}-{seed}", args.quantized_steps),
        "spikes": (runs / f"fashion-T{T}-{seed}", args.spike_steps),
    }
    if T in args.distilled:
        found["distilled"] = (runs / f"fashion-T{T}-{seed}-four", args.distil_steps)
    return found


def networks(T: int, seed: int, args: Namespace) -> dict[str, Path]:
    """The trained networks of a T and seed: "spikes", and "distilled" if wanted.

    Raises:
        UserError: a run in WORK has other settings; otherwise as `train`.
    """
    runs, common = stages(T, seed, args), [*COMMON, f"train.seed={seed}", f'data.path="{args.data / START}"']
    base = load_config(start_config(), common)
    run, steps = runs["quantized"]
    quantized = with_train(quantized_config(base, T), steps=steps, lr=1e-3)
    start = saved(quantized_from(load_pipeline(START).unet, T), args.work / "start" / f"levels-{T}")
    first = trained(quantized, run, start, "cpu")
    spiking = convert_ann(load_pipeline(first).unet.eval())
    converted = saved(spiking, args.work / "start" / f"T-{T}-{seed}")
    run, steps = runs["spikes"]
    further = continued_config(with_train(base, steps=steps, lr=5e-4), spiking.config)
    found = {"spikes": trained(further, run, converted, "cpu")}
    if "distilled" in runs:
        found["distilled"] = distilled(found["spikes"], *runs["distilled"])
    return found


def distilled(teacher: Path, run: Path, steps: int) -> Path:
    """A student of four evaluations. Raises `UserError` as `trained` does."""
    given = {"train.steps": steps, "train.lr": 5e-4, "distill.x0_scale": 1.01}
    return trained(student_config(teacher / "config.yaml", str(teacher), 4, given), run, teacher, "cpu")


def milliseconds(runs: dict[str, Path], images: int = 16) -> dict[str, float]:
    """Median milliseconds of an evaluation per image, of networks in turn, with the threads that torch has."""
    x, t = torch.randn(images, 1, 32, 32), torch.full((images,), 500)
    compiled = {name: load_pipeline(run).model_for("fast") for name, run in runs.items()}

    def task(network: Any) -> Any:
        return lambda: network(x, t, return_dict=False)

    with torch.no_grad():
        found = medians({name: task(network) for name, network in compiled.items()}, 15, time.perf_counter)
    return {name: 1000 * seconds / images for name, seconds in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "work", "results"):
        parser.add_argument(name, type=lambda path: Path(path).resolve())
    parser.add_argument("--T", type=int, nargs="+", default=[1, 2, 3, 4, 8])
    parser.add_argument("--distilled", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--quantized-steps", type=int, default=200)
    parser.add_argument("--spike-steps", type=int, default=150)
    parser.add_argument("--distil-steps", type=int, default=150)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--only-train", action="store_true", help="train the networks, measure nothing")
    args = parser.parse_args()
    args.engine, args.fad_weights, args.fad_statistics = "fast", None, None
    wanted = [(T, seed) for seed in args.seeds for T in args.T]
    for T, seed in wanted:  # before hours of training
        for run, steps in stages(T, seed, args).values():
            check_steps(run, steps)
    runs = {(T, seed): networks(T, seed, args) for T, seed in wanted}
    if args.only_train:
        return
    for kind, sampler in (("spikes", TEN), ("distilled", {}), ("spikes", FIFTY)):
        for (T, _), found in runs.items():
            if kind in found:
                scale = sampler.get("x0") or best_scale(runs[T, args.seeds[0]][kind], sampler, args)
                cell = Cell(str(found[kind]), {**sampler, "x0": scale})
                write(args.results / "few.json", measure(cell, args))
    took = milliseconds({f"T={T}": runs[T, args.seeds[0]]["spikes"] for T in args.T})
    with atomic_path(args.results / "time_steps.json") as temporary:
        temporary.write_text(json.dumps({"milliseconds_per_image_and_evaluation": took}, indent=1) + "\n")


if __name__ == "__main__":
    run_benchmark(main)
