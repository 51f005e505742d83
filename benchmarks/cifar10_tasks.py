"""The tasks of benchmarks/cifar10_measure.py: commands whose JSON is kept, so that nothing is measured twice. A command
with other options or weights is run again."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cifar10_classifier import load_classifier, recognised
from measuring import kept_json, weights_of

from sddpm import load_pipeline
from sddpm.data import unit_to_uint8
from sddpm.files import atomic_path

Found = dict[str, Any]
SCALES = (1.005, 1.01)
GUIDANCE_SCALES = (1.0, 1.5, 2.0, 3.0)
CHOICE_SEED = 1_000_000  # first seed of the samples for choosing; those for the scores begin at 0


@dataclass(frozen=True)
class Bench:
    """Paths, and numbers of samples: `many` for leg A, its ANN and the released models, `few` for the others, `search`
    for choosing. references: number of reference images, None for all (10,000 for choosing); moments: images for
    Analytic-DPM's moments."""

    data: Path
    runs: Path
    work: Path
    classifier: Path
    inception: Path
    many: int = 10_000
    few: int = 5_000
    search: int = 2_000
    steps: int = 20
    dim: int = 768
    references: int | None = None
    moments: int = 32

    def kept(self, name: str) -> Path:
        return self.work / "measured" / f"{name}.json"

    def command(self, name: str, *arguments: object, option: str = "--out") -> Found:
        """The JSON output of an sddpm command, as `kept_json` does."""
        return kept_json(self.kept(name), option, *arguments)

    def reference(self, split: str) -> list[object]:
        limit = self.references if split == "test" else self.references or 10_000
        limited = [] if limit is None else ["--limit-reference", limit]
        return ["--reference", "cifar10", "--data", self.data / "cifar10", "--split", split, *limited]

    def inception_options(self) -> list[object]:
        return ["--dim", self.dim, "--inception", self.inception, "--work", self.work / "cache"]

    def evaluate(self, name: str, source: object, metrics: str, samples: int, *options: object) -> Found:
        """FID and similar metrics against the test images, with intervals."""
        common = ["--metric", metrics, "--samples", samples, "--interval", *self.inception_options()]
        return self.command(name, "evaluate", source, *self.reference("test"), *common, *options)


@dataclass(frozen=True)
class Choice:
    """A solver, an x0_scale and a bound of the initial noise (None: none), chosen for a model."""

    solver: str
    x0_scale: float = 1.0
    noise_clip: float | None = None

    def options(self, steps: int) -> list[object]:
        return [*self.unscaled(steps), "--x0-scale", self.x0_scale]

    def unscaled(self, steps: int) -> list[object]:
        options: list[object] = ["--steps", steps, "--solver", self.solver]
        return options if self.noise_clip is None else [*options, "--noise-clip", self.noise_clip]

    def label(self) -> str:
        clip = "" if self.noise_clip is None else f"-clip-{self.noise_clip:g}"
        return f"{self.solver}-{self.x0_scale:g}{clip}"


SAMPLERS = (  # a solver that adds noise takes no bound of the initial one
    Choice("dpm++"),
    Choice("dpm++", noise_clip=1.7),
    Choice("unipc"),
    Choice("unipc", noise_clip=1.7),
    Choice("sde-dpm++"),
)


def choose(bench: Bench, name: str, run: Path) -> tuple[Choice, dict[str, float]]:
    """The solver and bound of the noise, then the x0_scale, with the lowest KID (unbiased for few samples) against
    training images."""
    tried: dict[str, float] = {}

    def kid(choice: Choice) -> float:
        label = choice.label()
        common = ["--metric", "kid", "--samples", bench.search, "--seed", CHOICE_SEED, "--no-copies"]
        common += [*bench.reference("train"), *bench.inception_options(), *choice.options(bench.steps)]
        found = bench.command(f"choice-{name}-{label}", "evaluate", run, *common)
        tried[label] = found["metrics"]["kid"]["value"]
        return tried[label]

    best = min(SAMPLERS, key=kid)
    return min((best, *(replace(best, x0_scale=scale) for scale in SCALES)), key=kid), tried


def scores(found: Found) -> Found:
    """{metric: [value, low, high]} of an evaluation, distances under their name and features, and its near copies."""
    dim = found["protocol"]["dim"]
    metrics = {
        f"{name}{dim}" if name in ("fid", "kid") else name: [each["value"], *each["interval_95"]]
        for name, each in found["metrics"].items()
    }
    copies = found["near_copies"]
    return metrics | ({} if copies is None else {"near_copies": copies})


def quality(bench: Bench, name: str, run: Path, choice: Choice, samples: int) -> Found:
    """Classes drawn uniformly at scale 1."""
    picture = bench.work / f"{name}.png"
    options = [*choice.options(bench.steps), "--grid", picture]
    return scores(bench.evaluate(f"quality-{name}", run, "fid,kid,precision,recall", samples, *options))


def without_class(bench: Bench, run: Path, choice: Choice) -> Found:
    options = [*choice.options(bench.steps), "--class", "none", "--no-copies"]
    return scores(bench.evaluate("no-class", run, "fid,kid,precision,recall", bench.few, *options))


def energy(bench: Bench, name: str, run: Path, choice: Choice) -> Found:
    """pJ of an evaluation and of a picture by each cost model, and the firing rate, with the sampler of `quality`."""
    found = bench.command(f"energy-{name}", "energy", run, *choice.options(bench.steps), option="--json")
    return {
        "evaluations": found["evaluations_per_sample"],
        "firing_rate": found["firing_rate"],
        "pj_an_evaluation": {cost: sum(parts.values()) for cost, parts in found["energy_pj"].items()},
        "pj_a_picture": found["energy_per_sample_pj"],
    }


def thresholds(bench: Bench, name: str, run: Path, choice: Choice) -> Found:
    """FID at firing thresholds of 0.98 to 1.01 times the trained ones, with the same seeds, and the verdict on fresh
    ones, each with its difference to the trained model."""
    common = [*bench.reference("test"), *bench.inception_options(), "--metric", "fid", "--samples", bench.search]
    search = ["--grid", "0.98,0.99,1,1.01", "--refine", 0, "--seed-sets", 1, "--validation-sets", 2]
    fixed = [*choice.unscaled(bench.steps), "--proxy-images", 0, "--no-store"]
    found = bench.command(f"thresholds-{name}", "guide", run, *common, *search, *fixed)
    rows = [
        {"multiple": trial["multiples"][0], "fid": trial["value"], "less_trained": trial["difference"]["interval_95"]}
        for trial in found["trials"]
    ]
    return {"trials": rows, "validation": found["validation"], "beats_trained": found["beats_trained"]}


def weights(run: Path) -> str:
    """A short name of a run's weights, for the names of files made with them."""
    return str(weights_of(run))[:12]


def analytic(bench: Bench, run: Path) -> Found:
    """Analytic-DPM compared with DDIM and DDPM, with 10 and 20 steps."""
    copy = bench.work / f"with-moments-{bench.moments}-{weights(run)}"
    if not copy.is_dir():
        with atomic_path(copy) as temporary:
            shutil.copytree(run / "model", temporary)
            words = ["moments", temporary, "--config", run / "config.yaml", "--data", bench.data / "cifar10"]
            words += ["--samples", bench.moments]
            subprocess.run([sys.executable, "-m", "sddpm", *map(str, words)], check=True)
    found = {}
    for steps in (bench.steps // 2, bench.steps):
        for solver in ("ddim", "ddpm", "analytic-dpm"):
            label = f"{solver}-{steps}"
            options = [*Choice(solver).options(steps), "--no-copies"]
            found[label] = scores(bench.evaluate(f"analytic-{label}", copy, "fid,kid", bench.few, *options))
    return found


def draw_classes(run: Path, out: Path, count: int, choice: Choice, steps: int, scale: float) -> None:
    """`count` samples with the classes in turn, each with its own seed, to an .npz with the classes in arr_1."""
    pipeline = load_pipeline(run)
    labels = [seed % 10 for seed in range(count)]
    options: Any = {"solver": choice.solver, "x0_scale": choice.x0_scale, "num_inference_steps": steps}
    if choice.noise_clip is not None:
        options["noise_clip"] = choice.noise_clip
    stream = pipeline.stream(range(count), class_labels=labels, guidance_scale=scale, batch_size=50, **options)
    images = torch.cat([unit_to_uint8(batch) for _, batch in stream]).permute(0, 2, 3, 1).numpy()
    with atomic_path(out) as temporary, temporary.open("wb") as file:
        np.savez(file, arr_0=images, arr_1=np.array(labels))


def class_guidance(bench: Bench, name: str, run: Path, choice: Choice) -> Found:
    """FID and KID at each guidance scale, and the share of samples that the classifier assigns to their class, also
    relative to its accuracy on real test images."""
    if not (bench.classifier / "classifier.json").is_file():
        script = Path(__file__).with_name("cifar10_classifier.py")
        subprocess.run([sys.executable, script, bench.data / "cifar10", bench.classifier], check=True)
    accuracy = json.loads((bench.classifier / "classifier.json").read_text())["accuracy"]
    network = load_classifier(bench.classifier)
    found: Found = {"model": name, "classifier_accuracy": accuracy, "scales": {}}
    for scale in GUIDANCE_SCALES:
        about = f"{bench.few}-{choice.label()}-{bench.steps}-{weights(run)}"
        samples = bench.work / f"{name}-scale-{scale:g}-{about}.npz"
        if not samples.is_file():
            samples.parent.mkdir(parents=True, exist_ok=True)
            draw_classes(run, samples, bench.few, choice, bench.steps, scale)
        with np.load(samples) as stored:
            images, labels = torch.from_numpy(stored["arr_0"]).permute(0, 3, 1, 2), torch.from_numpy(stored["arr_1"])
        right, count = recognised(network, images, labels)
        measured = scores(bench.evaluate(f"scale-{name}-{scale:g}", samples, "fid,kid", bench.few, "--no-copies"))
        share = {"recognised": right / count, "of_real_images": right / count / accuracy}
        found["scales"][f"{scale:g}"] = measured | share
    return found


def sum_of_seconds(files: Sequence[Path]) -> float:
    return sum(float(file.read_text()) for file in files)
