"""One evaluation from beginning to end: what can be refused is refused before hours of sampling."""

import time
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sddpm.errors import UserError
from sddpm.evaluation.copies import near_copies, refuse_overlap
from sddpm.evaluation.extraction import extract
from sddpm.evaluation.features.extractor import Extractor, fad_extractor, inception_extractor
from sddpm.evaluation.features.weights import INCEPTION_SHA256
from sddpm.evaluation.images import ImageSet, refuse_changed
from sddpm.evaluation.metrics import Features, Metric, Score
from sddpm.evaluation.metrics.frechet import check_enough
from sddpm.evaluation.metrics.inception_score import check_splits
from sddpm.evaluation.metrics.score import check_interval
from sddpm.evaluation.processes import Processes, launched_processes
from sddpm.evaluation.protocols import Conditions, departures
from sddpm.evaluation.settings import EvaluationSettings, Plan, make_plan
from sddpm.evaluation.sources import Reference, Samples, open_reference, open_reference_images, open_samples
from sddpm.evaluation.statistics import Gaussian
from sddpm.evaluation.statistics_files import read_statistics
from sddpm.pipelines.devices import pick_device

GRID = 64


@dataclass(frozen=True)
class Measurement:
    """A metric's score, and in what it departs from the protocol."""

    metric: Metric
    label: str
    score: Score
    departures: list[str]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    facts: plain data: sources, weights, copies, seconds. grid: the first up to 64 samples, uint8 [N, C, H, W].
    """

    plan: Plan
    measurements: list[Measurement]
    facts: dict[str, Any]
    grid: Tensor


def evaluate(settings: EvaluationSettings) -> Evaluation | None:
    """Sample if need be, compute features, measure.

    Everything that takes time is kept in `settings.work` and not done again. Started by torchrun, several processes
    share the sampling and the features, and the numbers are the same; the first one returns them, the others None.

    Raises:
        UserError: whatever cannot be measured, in one line.
    """
    plan = make_plan(settings)
    device = pick_device(settings.device)
    with launched_processes() as processes:
        samples = open_samples(settings, plan, device)
        extractors = open_extractors(settings, plan, samples, device)
        reference = open_reference(settings, plan, samples)
        targets = known_targets(settings, plan, reference, extractors)
        check_counts(settings, plan, samples, reference, targets, extractors)

        clock = _Clock()
        images = samples.make(processes)
        clock.lap("sampling")
        shared = refuse_overlap(images, reference.images, settings.allow_overlap) if reference.images else None
        found = compute_features(extractors, images, plan, processes, "features of samples")
        needed = {feature_name(metric, plan) for metric in plan.metrics if metric.against != "nothing"} - set(targets)
        useful = {kind: each for kind, each in extractors.items() if needed & set(each.lengths)}
        against = compute_features(useful, reference.images, plan, processes, "features of reference")
        clock.lap("features")
        if samples.watched is not None:
            refuse_changed(*samples.watched)
        if not processes.first:
            return None
        measurements = [
            _measure(metric, settings, plan, samples, reference, extractors, found, against | targets)
            for metric in plan.metrics
        ]
        clock.lap("metrics")
        copies = _near_copies(settings, samples, images, reference)
        clock.lap("copies")
    facts = {
        "samples": samples.about | {"skipped": samples.skipped, "distinct": len(set(images.digests))},
        "reference": reference.about | {"skipped": reference.skipped},
        "weights": {kind: {"path": str(x.path), "sha256": x.about["sha256"]} for kind, x in extractors.items()},
        "fad_statistics": None if settings.fad_statistics is None else str(settings.fad_statistics),
        "exact_copies_of_reference": shared,
        "near_copies": copies,
        "device": str(device),
        "processes": processes.count,
        "work": str(plan.work),
        "seconds": clock.laps,
    }
    return Evaluation(plan, measurements, facts, images.gather(list(range(min(GRID, images.count)))))


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self._last = round(now - self._last, 2), now


def feature_name(metric: Metric, plan: Plan) -> str:
    """The features that a metric is measured in, by the name that their extractor gives them."""
    return str(plan.dim) if metric.features == "pool" else metric.features


def open_extractors(settings: EvaluationSettings, plan: Plan, samples: Samples, device: Any) -> dict[str, Extractor]:
    """{"inception": ..., "fad": ...}, as far as the metrics need them."""
    found = {}
    names = list(dict.fromkeys(feature_name(metric, plan) for metric in plan.metrics if metric.features != "fad"))
    if names:
        found["inception"] = inception_extractor(
            names, preprocessing=plan.preprocessing, weights=settings.inception, device=device
        )
    if any(metric.features == "fad" for metric in plan.metrics) and settings.fad_weights is not None:
        found["fad"] = fad_extractor(settings.fad_weights, samples.channels, device=device)
    return found


def known_targets(
    settings: EvaluationSettings, plan: Plan, reference: Reference, extractors: dict[str, Extractor]
) -> dict[str, Features]:
    """Features of which only the Gaussian is known, from statistics files, checked against what they are for."""
    targets: dict[str, Features] = {}
    files = {"fad": read_statistics(settings.fad_statistics).gaussians["pool"]} if settings.fad_statistics else {}
    if reference.statistics is not None:
        made_with = reference.about["made_with"].get("preprocessing", plan.preprocessing)
        if made_with != plan.preprocessing:
            raise UserError(
                f"{settings.reference} was made with {made_with} preprocessing: choose --preprocessing {made_with}"
            )
        gaussians = reference.statistics.gaussians
        files |= {str(plan.dim): gaussians["pool"]}
        files |= {"spatial": gaussians["spatial"]} if "spatial" in gaussians else {}
    for metric in plan.metrics:
        name = feature_name(metric, plan)
        if metric.against == "nothing" or name in targets:
            continue
        if metric.against == "images" and reference.images is None:
            raise UserError(f"{metric.name} needs images as --reference, which {settings.reference} does not hold")
        if name not in files and reference.images is None:
            where = "--fad-statistics is" if name == "fad" else "images, or mu_s and sigma_s in the file, are"
            raise UserError(f"{metric.name} cannot be measured against {settings.reference} alone: {where} needed")
        if name in files:
            targets[name] = Features(name, None, _fitting(files[name], name, metric, extractors))
    return targets


def _fitting(gaussian: Gaussian, name: str, metric: Metric, extractors: dict[str, Extractor]) -> Gaussian:
    length = extractors["fad" if name == "fad" else "inception"].lengths[name]
    if gaussian.dim != length:
        raise UserError(
            f"the statistics file for {metric.name} has {gaussian.dim} dimensions, the features {length}: "
            "choose another file" + ("" if name in ("fad", "spatial") else ", or --dim")
        )
    return gaussian


def check_counts(
    settings: EvaluationSettings,
    plan: Plan,
    samples: Samples,
    reference: Reference,
    targets: dict[str, Features],
    extractors: dict[str, Extractor],
) -> None:
    """Raise `UserError` if there are fewer samples or reference images than a metric needs."""
    if settings.interval:
        check_interval(samples.count)
    lengths = {name: length for extractor in extractors.values() for name, length in extractor.lengths.items()}
    for metric in plan.metrics:
        if metric.against == "statistics":
            name = feature_name(metric, plan)
            check_enough(samples.count, "samples", lengths[name])
            if name not in targets and reference.images is not None:
                check_enough(reference.images.count, "reference images", lengths[name])
        if metric.name == "is":
            check_splits(samples.count, settings.splits)


def compute_features(
    extractors: dict[str, Extractor], images: ImageSet | None, plan: Plan, processes: Processes, title: str
) -> dict[str, Features]:
    """{feature: its vectors} of the images, from `plan.work` as far as they are there; nothing without images."""
    if images is None:
        return {}
    stores = {
        name: rows
        for extractor in extractors.values()
        for name, rows in extract(extractor, images, plan.work, processes, title).items()
    }
    return {name: Features(name, rows) for name, rows in stores.items()}


def _measure(
    metric: Metric,
    settings: EvaluationSettings,
    plan: Plan,
    samples: Samples,
    reference: Reference,
    extractors: dict[str, Extractor],
    found: dict[str, Features],
    against: dict[str, Features],
) -> Measurement:
    name = feature_name(metric, plan)
    options: dict[str, Any] = {"interval": settings.interval}
    if metric.name == "kid":
        options |= {"subsets": settings.kid_subsets, "subset_size": settings.kid_subset_size}
    if metric.name == "is":
        options |= {"splits": settings.splits}
    sides = (found[name],) if metric.against == "nothing" else (found[name], against[name])
    published_fad = metric.features == "fad" and settings.fad_statistics is not None
    made = Conditions(
        samples.count,
        None if published_fad else reference.split,
        plan.preprocessing,
        plan.dim,
        None if published_fad else settings.limit_reference,
        "inception" not in extractors or extractors["inception"].about["sha256"] == INCEPTION_SHA256,
        published_fad,
        samples.skipped + reference.skipped,
    )
    label = f"{metric.name}-{plan.dim}" if metric.features == "pool" else metric.name
    return Measurement(metric, label, metric.compute(*sides, **options), departures(plan.protocol, metric, made))


def _near_copies(
    settings: EvaluationSettings, samples: Samples, images: ImageSet, reference: Reference
) -> dict[str, Any] | None:
    """Against the training split of a data set, or all images of another reference; None without images."""
    if not settings.copies or reference.images is None or settings.reference is None:
        return None
    return near_copies(images, open_reference_images(settings, "train", samples))
