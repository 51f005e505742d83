"""Which recipe gets the most quality out of the same compute: short trainings, several seeds each.

    python benchmarks/recipe.py DATA OUT [--table fashion-mnist] [--minutes 5] [--seeds 0 1] [--arms NAME ...] [--list]

DATA contains, for Fashion-MNIST, fashion-mnist/ (the four idx files) and fad/ (FSVAE's autoencoder fashion_64.pth and
fashion_test_64.npz); for CIFAR-10, cifar10/ and the 2015 Inception weights (inception*.pth or inception/*.pth).

Every arm differs from its table's base (recipe_arms.py) as given there, and gets as many steps as fit into the same CPU
time. The time of a step is measured first, once for all arms with the same computation, so that a cheap network gets
more steps. The score is FAD against the test images, or KID in 768 features against training images, for samples of
DDIM with 20 steps and the same seeds for all. Arms that predict v on the linear schedule also get the prediction error
on 1,024 test images. OUT/TABLE gets the runs, recipe.json, recipe.md and costs.json, updated after every training. When
started again, with more arms or seeds, it continues; also on another machine, with the two .json files, where trainings
then get the same number of steps. With two cores, start it once on each, with different arms. The folder of a run
names its minutes, and stands for the values of --set.
"""

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path

import torch
from measuring import Rows, run_benchmark
from prediction_error import prediction_error
from recipe_arms import TABLES, Stage, Table
from recipe_summary import summarise
from scores import colour_kid, fashion_fad
from step_seconds import seconds_a_step, with_train
from trainings import check_settings, trained

from sddpm import load_pipeline
from sddpm.conversion.ann import convert_ann
from sddpm.conversion.training import continued_config
from sddpm.data import open_dataset, to_model
from sddpm.diffusion.schedule import add_noise
from sddpm.errors import UserError
from sddpm.files import atomic_path
from sddpm.hashes import short_hash
from sddpm.models.batch_norm import StepBatchNorm2d
from sddpm.training import Config, load_config, read_metrics

SCORES = {"fad": fashion_fad, "kid": colour_kid}
USUAL = {"references": 10_000, "dim": 768}  # also of rows that do not say them


def config_of(table: Table, stage: Stage, before: Path | None, seed: int, data: Path) -> tuple[Config, Path | None]:
    """The config of a stage, except its steps, and the model that it starts from."""
    dataset = load_config(table.config).data.dataset
    where = f"data.path={json.dumps(str(data / dataset))}"
    config = load_config(table.config, [*table.base, where, f"train.seed={seed}", *stage.overrides])
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
    return (with_train(config, teacher=str(before.resolve())) if stage.taught else config), start


def cost_of(config: Config, start: Path | None, costs: Rows) -> float:
    """Seconds per step of this config, measured unless known for a config with the same computation."""
    content = config.to_dict()
    model = content["model"] | {"v_threshold": None}  # one number or one per layer: the same work
    key = {"model": model, "batch_size": config.train.batch_size, "taught": config.train.teacher is not None}
    if config.train.optimizer not in ("adam", "adamw"):
        key |= {"optimizer": config.train.optimizer}
    if config.train.assign_noise:
        key |= {"assign_noise": True}
    known = [row["seconds"] for row in costs.read() if row == key | {"seconds": row["seconds"]}]
    if not known:
        known = [seconds_a_step(config, start)]
        costs.add(key | {"seconds": known[0]})
    return known[0]


def train_stage(stage: Stage, config: Config, start: Path | None, steps: int, run: Path, data: Path) -> None:
    """Train a stage to its end, continuing from its last checkpoint; does nothing if it is complete.

    Raises:
        UserError: the run has other settings; otherwise as `train`.
    """
    if stage.warmup is not None:
        config = with_train(config, warmup_steps=max(1, round(stage.warmup * steps)))
    config, norms_measured = with_train(config, steps=steps), run / "norms-measured"
    check_settings(run, config)
    if norms_measured.is_file():  # the weights of the model differ from those of the training
        return
    trained(config, run, start)
    if stage.renormed:
        measure_norms(run / "model", data)
        norms_measured.touch()


def train_arm(table: Table, name: str, seed: int, costs: Rows, args: argparse.Namespace) -> dict:
    """Train an arm stage by stage, and measure the result."""
    data = args.data / load_config(table.config).data.dataset
    before, found = None, []
    for number, stage in enumerate(table.arms[name]):
        run = args.out / "runs" / f"{name.replace(' ', '-')}-{seed}-{budget(args)}-{number}"
        config, start = config_of(table, stage, before, seed, args.data)
        steps = max(1, round(60 * args.minutes * stage.share / cost_of(config, start, costs)))
        train_stage(stage, config, start, steps, run, data)
        rows = read_metrics(run)
        loss = statistics.mean(row["loss"] for row in rows[-10:])
        found.append({"steps": steps, "images": steps * config.train.batch_size, "loss": loss})
        before = run
    assert before is not None
    score = SCORES[table.metric](before, args)
    error = error_on_test_images(before, data)
    return {"stages": found, "error": error, table.metric: score.value, "interval_95": score.interval}


def budget(args: argparse.Namespace) -> str:
    """What distinguishes the folders of two trainings of an arm: the minutes, and the settings of --set if any."""
    settings = f"-{short_hash(json.dumps(args.set))[:8]}" if args.set else ""
    return f"{args.minutes:g}min{settings}"


def error_on_test_images(run: Path, data: Path, images: int = 1024) -> float | None:
    """None for another prediction type or schedule than the other arms': the errors cannot be compared."""
    pipeline = load_pipeline(run)
    unet, config = pipeline.unet.eval(), pipeline.scheduler.config
    if (config.prediction_type, config.beta_schedule) != ("v_prediction", "linear"):
        return None
    size, channels = unet.config.sample_size, unet.config.in_channels
    dataset = open_dataset(data.name, data, "test", image_size=size, channels=channels)
    return prediction_error(unet, pipeline.scheduler, dataset.gather(range(images)), batch_size=64)


def measure_norms(model: Path, data: Path, images: int = 4096, batch_size: int = 64) -> None:
    """Recompute the batch-norm statistics of a saved model for its own weights, on noisy training images."""
    pipeline = load_pipeline(model)
    unet, config = pipeline.unet.train(), pipeline.unet.config
    norms = [module for module in unet.modules() if isinstance(module, StepBatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    dataset = open_dataset(data.name, data, "train", image_size=config.sample_size, channels=config.in_channels)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--table", choices=TABLES, default="fashion-mnist", help="which arms [fashion-mnist]")
    parser.add_argument("--minutes", type=float, default=5.0, help="CPU minutes for training an arm")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--arms", nargs="+", metavar="NAME", help="only these of the table")
    parser.add_argument("--samples", type=int, default=1000, help="samples for each score")
    parser.add_argument("--solver-steps", type=int, default=20, help="DDIM steps of a sample")
    parser.add_argument("--references", type=int, default=USUAL["references"], help="training images of a KID")
    parser.add_argument("--dim", type=int, default=USUAL["dim"], help="Inception features of a KID")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="for all arms, before their own settings"
    )
    parser.add_argument("--list", action="store_true", help="list the arms")
    args = parser.parse_args()
    table = replace(TABLES[args.table], base=(*TABLES[args.table].base, *args.set))
    arms = args.arms or list(table.arms)
    if unknown := [name for name in arms if name not in table.arms]:
        parser.error(f"--table {args.table} has no arm {unknown[0]!r}: see --list")
    if args.list:
        print("\n".join(arms))
        return
    if args.data is None or args.out is None:
        parser.error("give DATA and OUT")
    for name in arms:  # before hours of training
        for stage in table.arms[name]:
            try:
                load_config(table.config, [*table.base, *stage.overrides])
            except UserError as error:
                parser.error(f"{name}: {error}")
    args.out = args.out / args.table
    args.out.mkdir(parents=True, exist_ok=True)
    settings = {"minutes": args.minutes, "samples": args.samples, "solver_steps": args.solver_steps}
    settings |= {"set": args.set or None} | {name: getattr(args, name) for name in USUAL}
    costs, rows = Rows(args.out / "costs.json"), Rows(args.out / "recipe.json", USUAL)
    for seed in args.seeds:
        for name in arms:
            key = {"arm": name, "seed": seed, **settings}
            if rows.has(**key):
                continue
            rows.add(key | train_arm(table, name, seed, costs, args))
            alike = [row for row in rows.rows if all(row.get(k) == v for k, v in settings.items())]
            summarise(alike, args.out, table.metric, table.against)
            print(f"{name}, seed {seed}: {table.metric} {rows.rows[-1][table.metric]:.5g}", flush=True)


if __name__ == "__main__":
    run_benchmark(main)
