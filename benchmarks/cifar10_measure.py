"""The measurement of CIFAR-10: spikes compared with their ANN, SDDPM's recipe and the released models, at equal
evaluations.

    python benchmarks/cifar10_measure.py DATA RUNS WORK RESULTS [--tasks quality energy ...] [--models spiking ...]

DATA: folder with cifar10 and the 2015 Inception weights. RUNS: the folder runs/ of long_run.sh; models not trained yet
are left out. RESULTS gets cifar10.json, {"spiking": {"fid768": [value, low, high], "kid768": [...], "images": n,
"core_hours": h}, "twin": ..., "paper": ..., "ours_2h": ..., "shipped": ...}, and cifar10_details.json with the rest:
the choice of sampler, precision, recall, near copies, energy, leg A with no class, threshold guidance, TSM,
Analytic-DPM, guidance scales. Both are updated after every task. WORK keeps samples, features, the classifier and every
command's JSON, so that a stopped measurement continues. Only commands with other options or weights are run again.
About ten core-hours.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cifar10_tasks as tasks
from cifar10_tasks import Bench, Choice, Found, choose
from measuring import run_benchmark
from scores import inception_in
from trainings import finished

from sddpm.files import atomic_path
from sddpm.training import load_config, read_metrics


@dataclass(frozen=True)
class Model:
    """run: its folder in RUNS; stages: its trainings; many: whether to draw many samples or few."""

    run: str
    stages: tuple[str, ...]
    many: bool = False


LEG_A = ("leg-a-quantized", "leg-a")
MODELS = {
    "spiking": Model("leg-a", LEG_A, True),
    "twin": Model("twin", ("twin",), True),
    "shipped": Model("leg-b", (*LEG_A, "leg-b"), True),
    "ours_2h": Model("ours-2h", ("ours-2h-quantized", "ours-2h")),
    "paper": Model("paper", ("paper",)),
}


def cost(runs: Path, model: Model) -> Found:
    """The number of training images of a model, over all its stages, and the core-hours."""
    images, hours = 0, 0.0
    for stage in model.stages:
        batch = load_config(runs / stage / "config.yaml").train.batch_size
        images += read_metrics(runs / stage)[-1]["step"] * batch
        hours += tasks.sum_of_seconds([*(runs / f"{stage}.cpu.d").glob("*[0-9]")]) / 3600
    return {"images": images, "core_hours": round(hours, 2)}


class Measurement:
    """The tasks, by name, each yielding results under their key of cifar10_details.json."""

    def __init__(self, bench: Bench, models: list[str]):
        self.bench = bench
        self.models = {
            name: model for name, model in MODELS.items() if name in models and finished(bench.runs / model.run)
        }

    def run(self, name: str) -> Path:
        return self.bench.runs / MODELS[name].run

    def choice(self, name: str) -> Choice:
        return choose(self.bench, name, self.run(name))[0]

    def quality(self) -> Iterator[tuple[str, Found]]:
        for name, model in self.models.items():
            choice, tried = choose(self.bench, name, self.run(name))
            samples = self.bench.many if model.many else self.bench.few
            found = tasks.quality(self.bench, name, self.run(name), choice, samples)
            about = {"samples": samples, "steps": self.bench.steps, **asdict(choice), "tried": tried}
            yield name, found | about | cost(self.bench.runs, model)

    def no_class(self) -> Iterator[tuple[str, Found]]:
        if "spiking" in self.models:
            yield "no_class", tasks.without_class(self.bench, self.run("spiking"), self.choice("spiking"))

    def energy(self) -> Iterator[tuple[str, Found]]:
        names = [name for name in ("spiking", "twin", "shipped") if name in self.models]
        yield "energy", {name: tasks.energy(self.bench, name, self.run(name), self.choice(name)) for name in names}

    def class_guidance(self) -> Iterator[tuple[str, Found]]:
        for name in ("shipped", "spiking"):
            if name in self.models:
                yield "class_guidance", tasks.class_guidance(self.bench, name, self.run(name), self.choice(name))
                return

    def thresholds(self) -> Iterator[tuple[str, Found]]:
        names = [name for name in ("ours_2h", "spiking", "shipped") if name in self.models]
        found = {name: tasks.thresholds(self.bench, name, self.run(name), self.choice(name)) for name in names}
        yield "threshold_guidance", found

    def tsm(self) -> Iterator[tuple[str, Found]]:
        found = {}
        for name in ("tsm", "tsm-none"):
            model = Model(name, (name,))
            run = self.bench.runs / name
            if "spiking" in self.models and finished(run):
                choice = self.choice("spiking")
                found[name] = tasks.quality(self.bench, name, run, choice, self.bench.few)
                found[name] |= cost(self.bench.runs, model)
        yield "tsm", found

    def analytic(self) -> Iterator[tuple[str, Found]]:
        if "spiking" in self.models:
            yield "analytic_dpm", tasks.analytic(self.bench, self.run("spiking"))


TASKS: dict[str, Callable[[Measurement], Iterator[tuple[str, Found]]]] = {
    "quality": Measurement.quality,
    "no-class": Measurement.no_class,
    "energy": Measurement.energy,
    "class-guidance": Measurement.class_guidance,
    "thresholds": Measurement.thresholds,
    "tsm": Measurement.tsm,
    "analytic": Measurement.analytic,
}


def summary(details: Found, dim: int) -> Found:
    """The part of the results for cifar10.json: of the models measured in so many features."""
    names = [f"fid{dim}", f"kid{dim}", "images", "core_hours"]
    return {name: {key: details[name][key] for key in names} for name in MODELS if names[0] in details.get(name, {})}


def write(path: Path, content: Found) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--classifier", type=Path, help="folder of cifar10_classifier.py [WORK/classifier]")
    parser.add_argument(
        "--many", type=int, default=Bench.many, help="samples for leg A, its ANN and the released models"
    )
    parser.add_argument("--few", type=int, default=Bench.few, help="samples for the others")
    parser.add_argument("--search", type=int, default=Bench.search, help="samples for choosing the sampler")
    parser.add_argument("--steps", type=int, default=Bench.steps, help="evaluations of a sample")
    parser.add_argument("--dim", type=int, default=Bench.dim, help="Inception features")
    parser.add_argument("--moments", type=int, default=Bench.moments, help="images of Analytic-DPM's moments")
    parser.add_argument("--references", type=int, help="reference images [all]")
    args = parser.parse_args()
    numbers = {name: getattr(args, name) for name in ("many", "few", "search", "steps", "dim", "references", "moments")}
    classifier = args.classifier or args.work / "classifier"
    bench = Bench(args.data, args.runs, args.work, classifier, inception_in(args.data), **numbers)
    measurement, path = Measurement(bench, args.models), args.results / "cifar10_details.json"
    details = json.loads(path.read_text()) if path.is_file() else {}
    for folder in (bench.work, args.results):
        folder.mkdir(parents=True, exist_ok=True)
    for task in args.tasks:
        for key, found in TASKS[task](measurement):
            details[key] = found
            write(path, details)
            write(args.results / "cifar10.json", summary(details, args.dim))


if __name__ == "__main__":
    run_benchmark(main)
