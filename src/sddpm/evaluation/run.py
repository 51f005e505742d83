"""One evaluation from beginning to end: what can be refused is refused before hours of sampling."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sddpm.evaluation.copies import near_copies, refuse_overlap
from sddpm.evaluation.features.extractor import Extractor
from sddpm.evaluation.features.weights import INCEPTION_SHA256
from sddpm.evaluation.images import ImageSet
from sddpm.evaluation.metrics import Features, Metric, Score
from sddpm.evaluation.preparation import check_counts, compute_features, feature_name, known_targets, open_extractors
from sddpm.evaluation.processes import Processes, launched_processes, local_device
from sddpm.evaluation.protocols import Conditions, departures
from sddpm.evaluation.reduction import sum_moments
from sddpm.evaluation.settings import EvaluationSettings, Plan, make_plan
from sddpm.evaluation.sources import Reference, Samples, open_reference, open_samples, open_training, other_crop
from sddpm.hashes import sha256_of

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
    device = local_device(settings.device)
    with launched_processes() as processes:
        samples = open_samples(settings, plan, device)
        extractors = open_extractors(settings, plan, samples, device)
        reference = open_reference(settings, plan, samples)
        targets = known_targets(settings, plan, reference, extractors)
        check_counts(settings, plan, samples, reference, targets, extractors)
        training, why_none = open_training(settings, samples, reference)

        clock = _Clock()
        images = samples.make(processes)
        clock.lap("sampling")
        shared = refuse_overlap(images, reference.images, settings.allow_overlap) if reference.images else None
        found = compute_features(extractors, images, plan, processes, "features of samples")
        needed = {feature_name(metric, plan) for metric in plan.metrics if metric.against != "nothing"} - set(targets)
        useful = {kind: each for kind, each in extractors.items() if needed & set(each.lengths)}
        against = compute_features(useful, reference.images, plan, processes, "features of reference")
        for watched in (samples.watched, reference.watched):
            if watched is not None:
                watched.refuse_changes()
        found, against = (_with_moments(side, plan, processes) for side in (found, against))
        clock.lap("features")
        if not processes.first:
            return None
        measurements = [
            _measure(metric, settings, plan, samples, reference, extractors, found, against | targets)
            for metric in plan.metrics
        ]
        clock.lap("metrics")
        copies = near_copies(images, training) if training is not None else {"why": why_none} if why_none else None
        clock.lap("copies")
    facts = {
        "samples": samples.about | _pixels(images, samples.skipped),
        "reference": reference.about | _pixels(reference.images, reference.skipped),
        "weights": {kind: _file(extractor.path) for kind, extractor in extractors.items()},
        "fad_statistics": None if settings.fad_statistics is None else _file(settings.fad_statistics),
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


def _pixels(images: ImageSet | None, skipped: list[tuple[str, str]]) -> dict[str, Any]:
    """What tells these images from others, how many differ, and which were left out."""
    if images is None:
        return {}
    return {
        "pixels": images.identity,
        "distinct": len(set(images.digests)),
        "skipped": len(skipped),
        "skipped_first": skipped[:10],
    }


def _file(path: Path) -> dict[str, str]:
    return {"path": str(path), "sha256": sha256_of(path)}


def _with_moments(features: dict[str, Features], plan: Plan, processes: Processes) -> dict[str, Features]:
    """The features, those that a metric needs a Gaussian of with their moments."""
    gaussian = {feature_name(metric, plan) for metric in plan.metrics if metric.against == "statistics"}
    return {name: sum_moments(x, processes) if name in gaussian else x for name, x in features.items()}


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
    score = metric.compute(*sides, **options)
    neighbours = (score.details["samples"], score.details["reference"]) if "k" in score.details else None
    crop = other_crop(settings, reference)
    size = reference.about.get("made_with", {}).get("image_size", samples.image_size)
    published_fad = metric.features == "fad" and settings.fad_statistics is not None
    weights = extractors["inception"].about["sha256"] if "inception" in extractors else INCEPTION_SHA256
    made = Conditions(
        samples=samples.count,
        split=None if published_fad else reference.split,
        preprocessing=plan.preprocessing,
        dim=plan.dim,
        reference_limit=None if published_fad else settings.limit_reference,
        published_inception=weights == INCEPTION_SHA256,
        published_fad=published_fad,
        skipped=len(samples.skipped) + len(reference.skipped),
        splits=settings.splits,
        neighbours=neighbours,
        crops=None if crop is None else (str(reference.crop), crop),
        sizes=None if published_fad or size == samples.image_size else (size, samples.image_size),
    )
    label = f"{metric.name}-{plan.dim}" if metric.features == "pool" else metric.name
    return Measurement(metric, label, score, departures(plan.protocol, metric, made))
