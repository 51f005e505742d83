"""Ways to a student of four evaluations, at equal compute: one stage in spikes, quantised first, progressive halving.

    python benchmarks/distillation_ways.py DATA WORK [WAY ...] [--minutes 15] [--samples 2000]

A WAY is spikes, quantised or halving; by default all. Each starts from the packaged fashion-mnist, which is also the
teacher, and gets the same CPU time, converted to steps by a measurement on this machine. DATA: folder with
fashion-mnist and fad. The x0_scale of each student is the best of students.SCALES; then FAD and KAD of the samples are
measured as by few.py. WORK/ways.json has a row for each way, minutes and samples. A stopped measurement continues when
started again.

spikes: `sddpm distill` in one stage. quantised: two thirds of the time without SNN time steps (four levels), then
conversion to T = 4 and the last third in spikes, with the same teacher. halving: `--halve-from 32`, a quarter of the
time for each of the four stages.
"""

import argparse
import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from few import Cell, measure
from measuring import Rows, run_benchmark
from step_seconds import seconds_a_step, with_train
from students import START, best_scale, quantized_config, quantized_from, saved, start_config
from trainings import trained

from sddpm import load_pipeline
from sddpm.conversion.ann import convert_ann
from sddpm.conversion.training import continued_config
from sddpm.training import read_metrics
from sddpm.training.config import Config
from sddpm.training.distillation import student_config

COMMON = {
    "train.warmup_steps": 20,
    "train.lr": 6e-4,
    "train.ema_decay": 0.98,
    "train.seed": 0,
    "train.sample_every": 0,
    "train.log_every": 10,
    "train.checkpoint_every": 50,
    "train.tensorboard": False,
}


def student(evaluations: int, teacher: str, args: Namespace, **options: bool) -> Config:
    """The config of a stage; options as in `student_config`."""
    given = {**COMMON, "data.path": str(args.data / START), "distill.x0_scale": 1.01}
    return student_config(start_config(), teacher, evaluations, given, **options)


def steps_for(config: Config, share: float, start: Path | str, args: Namespace) -> int:
    """Steps in this share of the time; measured once for each network and teacher."""
    costs = Rows(args.work / "costs.json")
    assert config.distill is not None
    key = {"kind": config.model.kind, "substeps": config.distill.substeps, "teacher": Path(str(start)).name}
    if not costs.has(**key):
        costs.add(key | {"seconds": seconds_a_step(config, Path(start), steps=(4, 16))})
    seconds = next(row["seconds"] for row in costs.read() if all(row[name] == value for name, value in key.items()))
    return max(1, round(60 * args.minutes * share / seconds))


def folder(name: str, args: Namespace) -> Path:
    """The folder of a run or model, which is another one for other minutes."""
    return args.work / f"fashion-{name}-{args.minutes:g}min"


def in_spikes(args: Namespace) -> list[Path]:
    config = student(4, START, args)
    steps = steps_for(config, 1.0, START, args)
    return [trained(with_train(config, steps=steps), folder("in-spikes", args), START, "cpu")]


def quantised_first(args: Namespace) -> list[Path]:
    config = student(4, START, args)
    levels = config.model.T
    start = saved(quantized_from(load_pipeline(START).unet, levels), args.work / f"levels-{levels}")
    cheap = with_train(quantized_config(config, levels), lr=1e-3)
    cheap = with_train(cheap, steps=steps_for(cheap, 2 / 3, start, args))
    first = trained(cheap, folder("quantised", args), start, "cpu")
    spiking = convert_ann(load_pipeline(first).unet.eval())
    converted = saved(spiking, folder("converted", args))
    last = continued_config(config, spiking.config)
    last = with_train(last, steps=steps_for(last, 1 / 3, START, args))
    return [first, trained(last, folder("quantised-first", args), converted, "cpu")]


def halving(args: Namespace) -> list[Path]:
    runs, teacher = [], START
    for i, evaluations in enumerate((32, 16, 8, 4)):
        config = student(evaluations, teacher, args, halving=True, first=i == 0)
        steps = steps_for(config, 1 / 4, teacher, args)
        run = folder(f"halved-{evaluations}", args)
        runs.append(trained(with_train(config, steps=steps), run, teacher, "cpu"))
        teacher = str(runs[-1].resolve())
    return runs


WAYS = {"spikes": in_spikes, "quantised": quantised_first, "halving": halving}


def row_of(way: str, args: Namespace) -> dict[str, Any]:
    """Train a student and measure it."""
    runs = WAYS[way](args)
    cell = Cell(str(runs[-1]), {"x0": best_scale(runs[-1], {}, args)})
    steps = {run.name: read_metrics(run)[-1]["step"] for run in runs}
    found = measure(cell, args)
    return {"way": way, "minutes": args.minutes, "steps": steps, "x0_scale": float(cell.sampler["x0"]), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "work"):
        parser.add_argument(name, type=lambda path: Path(path).resolve())
    parser.add_argument("ways", nargs="*", metavar="WAY")
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--samples", type=int, default=2000)
    args = parser.parse_args()
    if unknown := set(args.ways) - set(WAYS):
        parser.error(f"unknown {', '.join(sorted(unknown))}; choose from {', '.join(WAYS)}")
    args.engine, args.fad_weights, args.fad_statistics = "fast", None, None
    args.work.mkdir(parents=True, exist_ok=True)
    rows = Rows(args.work / "ways.json")
    for way in args.ways or WAYS:
        key = {"way": way, "minutes": args.minutes, "samples": args.samples}
        if not rows.has(**key):
            rows.add(row_of(way, args))
        print(*(json.dumps(row) for row in rows.read() if key.items() <= row.items()))


if __name__ == "__main__":
    run_benchmark(main)
