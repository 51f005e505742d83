"""Energy against quality: energy per sample against FAD, on Fashion-MNIST, with an equal training budget.

    python benchmarks/energy_pareto.py DATA RUN OUT [--steps 150] [--samples 300] [--solver-steps 20] [--dry-run]

DATA contains fashion-mnist/ (the four idx files) and fad/ (FSVAE's autoencoder fashion_64.pth and fashion_test_64.npz).
RUN is a finished run of fashion_mnist_small. It is trained further unchanged, in the pure wiring, and in both with
penalties on firing rates, all with the same seed and number of steps. Each is sampled, also with early exits; FAD and
the energy ledger are measured.
OUT gets the runs, pareto.json, pareto.md and pareto.png. A stopped measurement continues when started again.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from measuring import run_benchmark
from scores import fashion_fad
from trainings import trained

from sddpm import load_pipeline
from sddpm.energy import load_cost_model, measure_sampling
from sddpm.energy.ledger import firing_rate
from sddpm.energy.measure import deployed
from sddpm.figures.energy import ParetoPoint, pareto, pareto_front
from sddpm.files import atomic_path
from sddpm.training import load_config, read_metrics

COSTS = ("45nm", "45nm-int8", "45nm-memory")
LEDGER_SEEDS = range(8)


@dataclass(frozen=True)
class Variant:
    """A training run: its name, the differences of its config from fashion_mnist_small, and the exits to try."""

    name: str
    overrides: tuple[str, ...] = ()
    exits: tuple[float | None, ...] = (None,)


def penalty(target: float) -> tuple[str, str]:
    return (f"train.rate_target={target}", "train.rate_penalty=100")


VARIANTS = (
    Variant("SDDPM", exits=(None, 0.3, 1.0)),
    Variant("SDDPM, rate 0.10", penalty(0.10)),
    Variant("pure", ("model.pure=true",)),
    Variant("SDDPM, rate 0.20", penalty(0.20)),
    Variant("pure, rate 0.10", ("model.pure=true", *penalty(0.10))),
)


def run_of(variant: Variant, args: argparse.Namespace) -> Path:
    """The run of a variant, trained to its end. Raises `UserError` as `trained` does."""
    run = args.out / "runs" / variant.name.replace(", ", "-").replace(" ", "-")
    settings = [f"train.steps={args.steps}", f"data.path={json.dumps(str(args.data / 'fashion-mnist'))}",
                f"train.warmup_steps={args.steps // 10}", "train.ema_decay=0.98", "train.batch_size=32",
                "train.sample_every=0", "train.checkpoint_every=100", "train.tensorboard=false"]  # fmt: skip
    config = load_config("fashion_mnist_small", [*settings, *variant.overrides])
    return trained(config, run, args.run)


def measure(run: Path, exit_tolerance: float | None, args: argparse.Namespace) -> dict:
    """FAD with its interval, and the ledger of a few samples, of one way to sample from a run."""
    score = fashion_fad(run, args, exit_tolerance)
    ledger = measure_sampling(
        deployed(load_pipeline(run)),
        LEDGER_SEEDS,
        solver="ddim",
        num_inference_steps=args.solver_steps,
        exit_tolerance=exit_tolerance,
    )
    rows = read_metrics(run)
    return {
        "fad": score.value,
        "fad_interval_95": score.interval,
        "energy_per_sample_pj": {name: ledger.per_sample(load_cost_model(name)).total for name in COSTS},
        "operations_per_evaluation": ledger.totals(),
        "firing_rate": firing_rate(ledger.layers),
        "snn_steps": ledger.snn_steps,
        "last_loss": sum(row["loss"] for row in rows[-4:]) / len(rows[-4:]),
    }


def points(args: argparse.Namespace) -> Iterator[dict]:
    """Every point, from the file if it exists there."""
    settings = {"steps": args.steps, "samples": args.samples, "solver_steps": args.solver_steps}
    path = args.out / "pareto.json"
    known = json.loads(path.read_text()) if path.exists() else {"settings": settings, "points": []}
    if known["settings"] != settings:
        raise SystemExit(f"{path} was made with {known['settings']}: choose another OUT, or these")
    for variant, exit_tolerance in [(each, exit) for each in VARIANTS for exit in each.exits]:
        key = {"variant": variant.name, "exit_tolerance": exit_tolerance}
        point = next((p for p in known["points"] if {k: p[k] for k in key} == key), None)
        if point is None:
            point = key | measure(run_of(variant, args), exit_tolerance, args)
            known["points"].append(point)
            with atomic_path(path) as temporary:
                temporary.write_text(json.dumps(known, indent=1))
        yield point


def summarise(found: list[dict], out: Path) -> None:
    """Write table and picture, with energies by the published cost model."""
    marks = [
        ParetoPoint(
            "" if p["exit_tolerance"] is None else f"exit {p['exit_tolerance']:g}",
            p["variant"],
            p["energy_per_sample_pj"]["45nm"] / 1e9,
            p["fad"],
            tuple(p["fad_interval_95"]),
        )
        for p in found
    ]
    front = pareto_front(marks)
    lines = [
        "| network | exit at | time steps | firing rate | MAC / AC (M) an evaluation "
        "| mJ a sample (45nm / int8 / memory) | FAD (95 %) | front |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for p, mark in zip(found, marks, strict=True):
        operations, energy = p["operations_per_evaluation"], p["energy_per_sample_pj"]
        low, high = p["fad_interval_95"]
        lines.append(
            f"| {p['variant']} | {p['exit_tolerance'] or ''} | {p['snn_steps']:.2f} | {p['firing_rate']:.3f} "
            f"| {operations['mac'] / 1e6:.2f} / {operations['ac'] / 1e6:.1f} "
            f"| {' / '.join(f'{energy[name] / 1e9:.3g}' for name in COSTS)} "
            f"| {p['fad']:.2f} ({low:.2f} to {high:.2f}) | {'yes' if mark in front else ''} |"
        )
    with atomic_path(out / "pareto.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n")
    with atomic_path(out / "pareto.png") as temporary:
        pareto(marks, "energy of a sample in mJ (45 nm, 4.6 / 0.9 pJ)", "FAD (lower is better)").savefig(temporary)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path, help="a finished run of fashion_mnist_small")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=150, help="further optimiser steps for each")
    parser.add_argument("--samples", type=int, default=300, help="samples of each FAD")
    parser.add_argument("--solver-steps", type=int, default=20, help="DDIM steps of a sample")
    parser.add_argument("--dry-run", action="store_true", help="print the plan only")
    args = parser.parse_args()
    if args.dry_run:
        for variant in VARIANTS:
            exits = ", ".join("none" if exit is None else f"{exit:g}" for exit in variant.exits)
            print(
                f"{variant.name}: {args.steps} steps with {' '.join(variant.overrides) or 'no change'}; exits {exits}"
            )
        print(f"each way to sample: {args.samples} images of {args.solver_steps} DDIM steps")
        return
    args.out.mkdir(parents=True, exist_ok=True)
    found = []
    for point in points(args):
        found.append(point)
        summarise(found, args.out)
        print(f"{point['variant']}, exit {point['exit_tolerance']}: FAD {point['fad']:.2f}, "
              f"{point['energy_per_sample_pj']['45nm'] / 1e9:.3g} mJ", flush=True)  # fmt: skip


if __name__ == "__main__":
    run_benchmark(main)
