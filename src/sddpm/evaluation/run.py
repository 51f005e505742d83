"""One evaluation. Invalid input is refused at the start, before hours of sampling."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sddpm.evaluation.copies import near_copies, refuse_overlap
from sddpm.evaluation.features.weights import INCEPTION_SHA256
from sddpm.evaluation.images import ImageSet
from sddpm.evaluation.metrics import Features, Metric, Score
from sddpm.evaluation.processes import launched_processes, local_device
from sddpm.evaluation.protocols import Conditions, departures
from sddpm.evaluation.run_data import with_run_data
from sddpm.evaluation.settings import EvaluationSettings, Plan, make_plan
from sddpm.evaluation.sides import Sides, open_sides, with_moments
from sddpm.evaluation.sources import open_training, other_crop, refuse_idle_place
from sddpm.hashes import sha256_of

GRID = 64


@dataclass(frozen=True)
class Measurement:
    """A metric's score, and its differences from the protocol."""

    metric: Metric
    label: str
    score: Score
    departures: list[str]


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`.

    facts: plain data: sources, weights, copies, seconds. grid: the first samples, at most 64, uint8 [N, C, H, W].
    """

    plan: Plan
    measurements: list[Measurement]
    facts: dict[str, Any]
    grid: Tensor


def evaluate(what: EvaluationSettings | str | Path, **options: Any) -> Evaluation | None:
    """Sample if needed, compute features, measure.

    All expensive results are kept in `settings.work` and reused. If several processes were started by torchrun, they
    share sampling and features, and the numbers are the same; the first process returns them, the others None.

    Args:
        what: the settings, or their `source`: a saved model, the folder of a run, or images. A run is compared with its
            training images, prepared in the same way, unless another `reference` is given.
        options: with a source, the other fields of `EvaluationSettings`.

    Raises:
        UserError: anything that cannot be measured.
    """
    given = what if isinstance(what, EvaluationSettings) else EvaluationSettings(str(what), **options)
    settings = with_run_data(given)
    plan = make_plan(settings)
    refuse_idle_place(given, settings)
    device = local_device(settings.device)
    with launched_processes() as processes:
        sides = open_sides(settings, plan, device)
        samples, reference = sides.samples, sides.reference
        training, why_none = open_training(settings, samples, reference)

        clock = _Clock()
        images = samples.make(processes)
        clock.lap("sampling")
        shared = refuse_overlap(images, reference.images, settings.allow_overlap) if reference.images else None
        of_samples = sides.features_of_samples(processes, images)
        of_reference = sides.features_of_reference(processes)
        for watched in (samples.watched, reference.watched):
            if watched is not None:
                watched.refuse_changes()
        of_samples, of_reference = (with_moments(each, sides, processes) for each in (of_samples, of_reference))
        clock.lap("features")
        if not processes.first:
            return None
        measurements = [_measure(metric, sides, of_samples, of_reference) for metric in plan.metrics]
        clock.lap("metrics")
        copies = near_copies(images, training) if training is not None else {"why": why_none} if why_none else None
        clock.lap("copies")
    facts = {
        "samples": samples.about | _pixels(images, samples.skipped),
        "reference": reference.about | _pixels(reference.images, reference.skipped),
        "weights": {kind: _file(extractor.path) for kind, extractor in sides.extractors.items()},
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
    """The identity of these images, the number of different ones, and those left out."""
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


def _measure(
    metric: Metric, sides: Sides, of_samples: Mapping[str, Features], of_reference: Mapping[str, Features]
) -> Measurement:
    target = sides.target(metric, of_reference)
    vectors = [of_samples[sides.feature(metric)], *([] if target is None else [target])]
    score = metric.compute(*vectors, **metric.keywords(sides.settings))
    score = score if isinstance(score, Score) else Score(float(score))
    plan = sides.plan
    off = departures(plan.protocol, metric, _conditions(metric, sides, score))
    return Measurement(metric, metric.label(plan.dim), score, off)


def _conditions(metric: Metric, sides: Sides, score: Score) -> Conditions:
    """The conditions of a score, for comparison with the protocol."""
    settings, samples, reference = sides.settings, sides.samples, sides.reference
    crop = other_crop(settings, reference)
    made = sides.known[sides.feature(metric)][1] if sides.knows(metric) else None  # None: from images
    size = (made or {}).get("image_size", samples.image_size)
    inception = sides.extractors.get("inception")
    network = sides.extractors.get(metric.network or "")
    weights = None if network is None else network.about["sha256"]
    return Conditions(
        samples=samples.count,
        split=reference.split if made is None else made.get("split"),
        preprocessing=sides.plan.preprocessing,
        dim=sides.plan.dim,
        reference_limit=settings.limit_reference if made is None else made.get("limit"),
        published_inception=inception is None or inception.about["sha256"] == INCEPTION_SHA256,
        published_fad=made is not None and not made,
        other_weights=(made or {}).get("sha256", weights) != weights,
        skipped=len(samples.skipped) + (len(reference.skipped) if made is None else made.get("skipped", 0)),
        splits=settings.splits,
        neighbours=score.used,
        crops=None if crop is None else (str(reference.crop), crop),
        sizes=None if size == samples.image_size else (size, samples.image_size),
    )
