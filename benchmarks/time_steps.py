"""How many SNN time steps: the same weights trained on for T = 1, 2, 3, 4 and 8 with equal images, then measured.

    python benchmarks/time_steps.py DATA WORK RESULTS [--T 1 2 3 4 8] [--distilled 2 4] [--seeds 0 1]
                                    [--quantized-steps 200] [--spike-steps 150] [--distil-steps 150]
                                    [--samples 2000] [--only-train]

DATA: folder with fashion-mnist and fad (FSVAE's autoencoder and statistics). Every T and seed has three stages:

1. The packaged fashion-mnist as a network with quantised activations (`quantized_from`), trained on with T levels.
2. Converted to T time steps, trained on in spikes.
3. For `--distilled` only: distilled to four evaluations, with the network of stage 2 as its teacher.

Networks of stage 2 are sampled with 10 and 50 evaluations, those of stage 3 with 4. With 50 evaluations the x0_scale is
that of the packaged model; else each T has the one of SCALES with the least KAD of 500 samples of other seeds, against
training images, for the first of the trainings. FAD, KAD, energy and firing rate are rows of RESULTS/few.json, as in
few.py; milliseconds per image and evaluation are in RESULTS/time_steps.json, measured in turn. A stopped measurement
continues when started again. At most one process for one WORK.
"""

import argparse
import json
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from few import Cell, measure, write
from measuring import kept_json, medians

from sddpm import load_config, load_pipeline, train
from sddpm.conversion.ann import convert_ann, receivers
from sddpm.conversion.training import continued_config
from sddpm.files import atomic_path
from sddpm.models import SpikingUNet2DModel
from sddpm.training import distill
from sddpm.training.config import Config, QuantizedConfig
from sddpm.training.history import config_path

START = "fashion-mnist"
SHARED = ("base_channels", "channel_mult", "num_res_blocks", "patch_size")
# Found for the packaged model by `sddpm guide --search sampler --evaluations 10`.
TEN = {"solver": "dpm++", "timesteps": "999,899,824,699,599,499,399,299,174,49"}
FIFTY = {"solver": "sde-dpm++", "steps": "50", "x0": "1.008"}
SCALES = ("1", "1.01", "1.02", "1.03", "1.05")
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


def quantized_from(spiking: SpikingUNet2DModel, levels: int) -> SpikingUNet2DModel:
    """The network with quantised activations of so many levels above 0 that `convert_ann` turns into this one at its
    own T, in evaluation mode. The thresholds become the learned steps."""
    own = {key: value for key, value in spiking.config.items() if not key.startswith("_")}
    plain = {"T": 1, "neuron": "quantized_relu", "v_threshold": 1.0, "activation_levels": levels}
    model = SpikingUNet2DModel(**{**own, **plain, "v_reset": None, "initial_charge": 0.0})
    weights = {name: value.clone() for name, value in spiking.state_dict().items()}
    thresholds = {name: float(neuron.v_threshold) for name, neuron in spiking.neurons().items()}
    for name, convolutions in receivers(model).items():
        weights[f"{name}.log_step"] = torch.tensor(thresholds[name]).log()
        for conv in convolutions:
            weights[f"{conv}.weight"] /= thresholds[name]
    weights["readout.conv.weight"] *= own["T"]
    weights["readout.conv.bias"] *= own["T"]
    model.load_state_dict(weights)
    return model.eval()


def saved(model: SpikingUNet2DModel, folder: Path) -> Path:
    """The model as a pipeline in a folder, which is not written again."""
    if not folder.is_dir():
        pipeline = load_pipeline(START)
        pipeline.register_modules(unet=model)
        with atomic_path(folder) as temporary:
            pipeline.save_pretrained(temporary)
    return folder


def trained(config: Config, run: Path, start: Path) -> Path:
    """The run, trained to its end, from its last checkpoint if there is one."""
    going = (run / "checkpoints").is_dir()
    if not (going and (run / "model").is_dir() and _last_step(run) >= config.train.steps):
        result = train(config, run, resume=going, init_from=None if going else start, device="cpu", progress=False)
        if result.stopped_by != "steps":
            raise SystemExit(f"stopped by {result.stopped_by}; run the same command to continue")
    return run


def _last_step(run: Path) -> int:
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"]


def networks(T: int, seed: int, args: Namespace) -> dict[str, Path]:
    """The trained networks of a T and seed: "spikes", and "distilled" if wanted."""
    runs, common = args.work / "runs", [*COMMON, f"train.seed={seed}", f'data.path="{args.data / START}"']
    source = config_path(START)
    assert source is not None  # packaged models have their config
    base = load_config(source, common)
    shared = {key: getattr(base.model, key) for key in SHARED}
    quantized = _changed(base, args.quantized_steps, 1e-3)
    quantized = quantized.model_copy(update={"model": QuantizedConfig(activation_levels=T, **shared)})
    start = saved(quantized_from(load_pipeline(START).unet, T), args.work / "start" / f"levels-{T}")
    first = trained(quantized, runs / f"fashion-quantized-{T}-{seed}", start)
    spiking = convert_ann(load_pipeline(first).unet.eval())
    converted = saved(spiking, args.work / "start" / f"T-{T}-{seed}")
    further = continued_config(_changed(base, args.spike_steps, 5e-4), spiking.config)
    found = {"spikes": trained(further, runs / f"fashion-T{T}-{seed}", converted)}
    if T in args.distilled:
        found["distilled"] = distilled(found["spikes"], runs / f"fashion-T{T}-{seed}-four", args)
    return found


def _changed(config: Config, steps: int, lr: float) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update={"steps": steps, "lr": lr})})


def distilled(teacher: Path, run: Path, args: Namespace) -> Path:
    """A student of four evaluations."""
    going = (run / "checkpoints").is_dir()
    if not (going and (run / "model").is_dir() and _last_step(run) >= args.distil_steps):
        overrides = [f"train.steps={args.distil_steps}", "train.lr=5e-4", "distill.x0_scale=1.01"]
        distill(teacher, run, evaluations=4, overrides=overrides, resume=going, device="cpu", progress=False)
    return run


def best_scale(run: Path, sampler: dict[str, str], args: Namespace) -> str:
    """The best of SCALES: least KAD of 500 samples, seeds from 1,000,000 on."""
    against = ["--reference", START, "--data", args.data / START, "--split", "train", "--protocol", "fsddim"]
    against += ["--metric", "kad", "--fad-weights", args.data / "fad" / "fashion_64.pth", "--seed", 1_000_000]
    against += ["--work", args.work / "cache", "--samples", 500, "--engine", "fast", "--no-copies", "--force"]

    def kad(scale: str) -> float:
        cell = Cell(str(run), {**sampler, "x0": scale})
        kept = args.work / f"scale-{cell.name}.json"
        return kept_json(kept, "--out", "evaluate", cell.model, *against, *cell.arguments())["metrics"]["kad"]["value"]

    return min(SCALES, key=kad)


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
    runs = {(T, seed): networks(T, seed, args) for seed in args.seeds for T in args.T}
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
    main()
