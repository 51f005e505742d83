"""Which recipe gets the most quality out of the same compute: short trainings on Fashion-MNIST, several seeds each.

    python benchmarks/recipe.py DATA OUT [--minutes 5] [--seeds 0 1] [--arms NAME ...] [--samples 1000] [--list]

DATA holds fashion-mnist/ (the four idx files) and fad/ (FSVAE's autoencoder fashion_64.pth and fashion_test_64.npz).
Every arm differs from fashion_mnist_small in what its line below says, and gets as many steps as fit into the same CPU
time: what a step costs is measured first, once for all arms that compute the same, so that a cheap network takes more
of them. Then come FAD of samples of DDIM with 20 steps, the same seeds for all, and the error of the prediction on
1,024 test images, for the arms that predict v on the linear schedule. OUT gets the runs, recipe.json, recipe.md and
costs.json, new after every training. Started again, with more arms or seeds, it goes on where it was stopped; elsewhere
too, with the two .json files, and then the trainings get as many steps there. Two cores: start it on each, with other
arms.
"""

import argparse
import json
import math
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from measuring import Rows, fashion_fad
from prediction_error import prediction_error
from scipy.special import stdtrit

from sddpm import load_pipeline
from sddpm.conversion.ann import convert_ann
from sddpm.conversion.training import continued_config
from sddpm.data import open_dataset, to_model
from sddpm.diffusion.schedule import add_noise
from sddpm.files import atomic_path
from sddpm.models.batch_norm import StepBatchNorm2d
from sddpm.training import Config, load_config, read_metrics, train
from sddpm.training.config_files import check_config

BASE = (
    "train.ema_decay=0.995",
    "train.warmup_steps=30",
    "train.sample_every=0",
    "train.checkpoint_every=100000",
    "train.log_every=10",
    "train.tensorboard=false",
)


@dataclass(frozen=True)
class Stage:
    """A training: overrides, and which share of the arm's compute it gets. start: "" for random weights, "weights" of
    the stage before, "converted" for its spiking form at T = 4; taught: by the network of the stage before; renormed:
    the batch-norm statistics are then those of the averaged weights, measured anew."""

    overrides: tuple[str, ...] = ()
    share: float = 1.0
    start: str = ""
    taught: bool = False
    renormed: bool = False


def arm(*overrides: str) -> tuple[Stage, ...]:
    return (Stage(overrides),)


QUANTIZED = ("model.kind=quantized", "train.lr=1.5e-3")
GENTLY = "train.lr=5e-4"
ARMS = {
    "as it is": arm(),
    "pure wiring": arm("model.pure=true"),
    "soft reset": arm("model.v_reset=null"),
    "detached reset": arm("model.detach_reset=true"),
    "LIF": arm("model.neuron=lif"),
    "PLIF": arm("model.neuron=plif"),
    "sigmoid surrogate": arm("model.surrogate=sigmoid"),
    "atan, alpha 1": arm("model.surrogate_alpha=1"),
    "atan, alpha 4": arm("model.surrogate_alpha=4"),
    "readout decay 1": arm("model.readout_decay=1"),
    "TSM": arm("model.temporal_modulation=true"),
    "in two stages": (Stage((), 0.7), Stage((GENTLY,), 0.3, "weights")),
    "in two stages, TSM in the second": (
        Stage((), 0.7),
        Stage((GENTLY, "model.temporal_modulation=true"), 0.3, "weights"),
    ),
    "batch norms measured anew": (Stage(renormed=True),),
    "EMA 0.9": arm("train.ema_decay=0.9"),  # its warm-up keeps any decay below 0.98 for the first 432 steps
    "no EMA": arm("train.ema_decay=0"),
    "lr 5e-4": arm("train.lr=5e-4"),
    "lr 2e-3": arm("train.lr=2e-3"),
    "warm-up of 150 steps": arm("train.warmup_steps=150"),
    "batch 32": arm("train.batch_size=32"),
    "batch 128": arm("train.batch_size=128"),
    "epsilon": arm("diffusion.prediction_type=epsilon"),
    "min-SNR 5": arm("diffusion.min_snr_gamma=5"),
    "cosine schedule": arm("diffusion.beta_schedule=cosine"),
    "T = 2 throughout": arm("model.T=2"),
    "T = 8 throughout": arm("model.T=8"),
    "T = 1, then 4": (Stage(("model.T=1",), 0.5), Stage((GENTLY,), 0.5, "weights")),
    "T = 2, then 4": (Stage(("model.T=2",), 0.5), Stage((GENTLY,), 0.5, "weights")),
    "quantised ANN, then spikes": (Stage(QUANTIZED, 0.6), Stage((GENTLY,), 0.4, "converted")),
    "quantised ANN, then spikes it teaches": (Stage(QUANTIZED, 0.6), Stage((GENTLY,), 0.4, "converted", True)),
    "taught by the ANN twin": (Stage(("model.kind=ann",), 0.3), Stage((), 0.7, taught=True)),
}


def config_of(stage: Stage, before: Path | None, seed: int, args: argparse.Namespace) -> tuple[Config, Path | None]:
    """The config of a stage, but for its steps, and the model that it starts from."""
    data = f"data.path={json.dumps(str(args.data / 'fashion-mnist'))}"
    config = load_config("fashion_mnist_small", [*BASE, data, f"train.seed={seed}", *stage.overrides])
    start = None
    if stage.start == "weights":
        start = before
    elif stage.start == "converted":
        assert before is not None
        pipeline = load_pipeline(before)
        spiking = convert_ann(pipeline.unet.eval(), T=4)
        pipeline.register_modules(unet=spiking)
        start = before.with_name(f"{before.name}-converted")
        with atomic_path(start) as temporary:
            pipeline.save_pretrained(temporary)
        config = continued_config(config, spiking.config)
    return (with_train(config, teacher=str(before)) if stage.taught else config), start


def with_train(config: Config, **values: object) -> Config:
    content = config.to_dict()
    return check_config({**content, "train": content["train"] | values}, "recipe.py")


def seconds_a_step(config: Config, start: Path | None) -> float:
    """CPU time of a step: of 28 less that of four, so that what a run does once does not count."""
    times = []
    for steps in (4, 28):
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            train(with_train(config, steps=steps), Path(folder, "run"), init_from=start, progress=False)
            times.append(time.process_time() - began)
    return (times[1] - times[0]) / 24


def cost_of(config: Config, start: Path | None, costs: Rows) -> float:
    """Seconds a step of this config takes, measured unless they are known of one that computes the same."""
    content = config.to_dict()
    model = content["model"] | {"v_threshold": None}  # a number or a number a layer: the same work
    key = {"model": model, "batch_size": config.train.batch_size, "taught": config.train.teacher is not None}
    if not costs.has(**key):
        costs.add(key | {"seconds": seconds_a_step(config, start)})
    return next(row["seconds"] for row in costs.rows if all(row[name] == value for name, value in key.items()))


def train_arm(name: str, seed: int, costs: Rows, args: argparse.Namespace) -> dict:
    """Train an arm stage by stage, and measure what comes out."""
    before, found = None, []
    for number, stage in enumerate(ARMS[name]):
        run = args.out / "runs" / f"{name.replace(' ', '-')}-{seed}-{number}"
        config, start = config_of(stage, before, seed, args)
        steps = max(1, round(60 * args.minutes * stage.share / cost_of(config, start, costs)))
        if not (run / "model").is_dir() or read_metrics(run)[-1]["step"] < steps:
            shutil.rmtree(run, ignore_errors=True)
            result = train(with_train(config, steps=steps), run, init_from=start, progress=False)
            if result.stopped_by != "steps":
                raise SystemExit(f"stopped by {result.stopped_by}; the same command goes on")
            if stage.renormed:
                measure_norms(run / "model", args.data / "fashion-mnist")
        rows = read_metrics(run)
        loss = statistics.mean(row["loss"] for row in rows[-10:])
        found.append({"steps": steps, "images": steps * config.train.batch_size, "loss": loss})
        before = run
    assert before is not None
    score = fashion_fad(before, args)
    error = error_on_test_images(before, args.data / "fashion-mnist")
    return {"stages": found, "error": error, "fad": score.value, "interval_95": score.interval}


def error_on_test_images(run: Path, data: Path, images: int = 1024) -> float | None:
    """None for a prediction or a schedule that the other arms do not have: no error of theirs says which is better."""
    pipeline = load_pipeline(run)
    unet, config = pipeline.unet.eval(), pipeline.scheduler.config
    if (config.prediction_type, config.beta_schedule) != ("v_prediction", "linear"):
        return None
    dataset = open_dataset("fashion-mnist", data, "test", image_size=unet.config.sample_size, channels=1)
    return prediction_error(unet, pipeline.scheduler, dataset.gather(range(images)), batch_size=64)


def measure_norms(model: Path, data: Path, images: int = 4096, batch_size: int = 64) -> None:
    """Give a saved model the batch-norm statistics of its own weights, on noisy training images."""
    pipeline = load_pipeline(model)
    unet, config = pipeline.unet.train(), pipeline.unet.config
    norms = [module for module in unet.modules() if isinstance(module, StepBatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    dataset = open_dataset("fashion-mnist", data, "train", image_size=config.sample_size, channels=config.in_channels)
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(dataset), generator=generator)[:images]
    t = torch.randint(pipeline.scheduler.config.num_train_timesteps, (images,), generator=generator)
    x0 = to_model(dataset.gather(chosen))
    x_t = add_noise(pipeline.scheduler.alphas_cumprod, x0, torch.randn(x0.shape, generator=generator), t)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        for x, steps in zip(x_t.split(batch_size), t.split(batch_size), strict=True):
            unet(x, steps)
    with atomic_path(model) as temporary:
        pipeline.save_pretrained(temporary)


def summarise(rows: list[dict], out: Path) -> None:
    """A line an arm, the best first: images of each stage; of each seed the error on test images and FAD with the
    interval of its samples; and the share of "as it is" with the interval of trainings."""
    arms: dict[str, dict[int, dict]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        arms.setdefault(row["arm"], {})[row["seed"]] = row
    shares = shares_of("as it is", {name: {s: row["fad"] for s, row in found.items()} for name, found in arms.items()})
    lines = ["| arm | images | error | FAD, 95 % interval | of `as it is` |", "|---|---|---|---|---|"]
    for name, found in sorted(arms.items(), key=lambda item: statistics.mean(row["fad"] for row in item[1].values())):
        seeds = list(found.values())
        images = " + ".join(f"{stage['images']:,}" for stage in seeds[0]["stages"])
        errors = "; ".join(f"{row['error']:.4f}" for row in seeds if row["error"] is not None)
        scores = "; ".join(
            f"{row['fad']:.1f} [{row['interval_95'][0]:.1f}, {row['interval_95'][1]:.1f}]" for row in seeds
        )
        lines.append(f"| {name} | {images} | {errors} | {scores} | {' '.join(shares.get(name, []))} |")
    with atomic_path(out / "recipe.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n")


def shares_of(base: str, scores: dict[str, dict[int, float]]) -> dict[str, list[str]]:
    """Of each arm's scores by seed, the geometric mean of their shares of the base's with the same seed, and, once
    there are two seeds, its 95 % interval."""
    logs = {name: {seed: math.log(value) for seed, value in found.items()} for name, found in scores.items()}
    spread, freedom = spread_of_trainings(logs)
    shares = {}
    for name, found in logs.items():
        differences = [found[seed] - value for seed, value in logs.get(base, {}).items() if seed in found]
        if not differences:
            continue
        middle = statistics.mean(differences)
        shares[name] = [f"{math.exp(middle):.2f}"]
        if freedom and name != base:  # two trainings differ, the arm's and the base's
            width = stdtrit(freedom, 0.975) * spread * math.sqrt(2 / len(differences))
            shares[name].append(f"[{math.exp(middle - width):.2f}, {math.exp(middle + width):.2f}]")
    return shares


def spread_of_trainings(values: dict[str, dict[int, float]]) -> tuple[float, int]:
    """Standard deviation of one training's value beyond what its arm and its seed make of it (analysis of variance in
    two ways), and its degrees of freedom. Two trainings of one arm say little of it, two of every arm enough."""
    seeds = {seed for found in values.values() for seed in found}
    rows = [[found[seed] for seed in sorted(seeds)] for found in values.values() if len(found) == len(seeds)]
    freedom = (len(rows) - 1) * (len(seeds) - 1)
    if freedom <= 0:
        return 0.0, 0
    of_arm = [statistics.mean(row) for row in rows]
    of_seed = [statistics.mean(column) for column in zip(*rows, strict=True)]
    mean = statistics.mean(of_arm)
    squares = sum(
        (value - of_arm[i] - of_seed[k] + mean) ** 2 for i, row in enumerate(rows) for k, value in enumerate(row)
    )
    return math.sqrt(squares / freedom), freedom


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--minutes", type=float, default=5.0, help="CPU time of the training of an arm")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="NAME")
    parser.add_argument("--samples", type=int, default=1000, help="samples of each FAD")
    parser.add_argument("--solver-steps", type=int, default=20, help="DDIM steps of a sample")
    parser.add_argument("--list", action="store_true", help="name the arms")
    args = parser.parse_args()
    if args.list:
        print("\n".join(ARMS))
        return
    if args.data is None or args.out is None:
        parser.error("give DATA and OUT")
    args.out.mkdir(parents=True, exist_ok=True)
    settings = {"minutes": args.minutes, "samples": args.samples, "solver_steps": args.solver_steps}
    costs, rows = Rows(args.out / "costs.json"), Rows(args.out / "recipe.json")
    for seed in args.seeds:
        for name in args.arms:
            key = {"arm": name, "seed": seed, **settings}
            if rows.has(**key):
                continue
            rows.add(key | train_arm(name, seed, costs, args))
            summarise([row for row in rows.rows if all(row[k] == v for k, v in settings.items())], args.out)
            print(f"{name}, seed {seed}: FAD {rows.rows[-1]['fad']:.2f}", flush=True)


if __name__ == "__main__":
    main()
