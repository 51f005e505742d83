"""Common to all searches: opening the trials of an evaluation, and comparing two points on the same seeds."""

from typing import Any

from sddpm.evaluation.processes import Processes
from sddpm.evaluation.sides import Sides
from sddpm.guidance.bootstrap import Estimate, estimate
from sddpm.guidance.proxy import NoisyImages
from sddpm.guidance.results import Comparison
from sddpm.guidance.space import Point
from sddpm.guidance.trials import Points, Trials
from sddpm.hashes import sha256_of
from sddpm.pipelines import SpikingDiffusionPipeline


def open_trials(
    sides: Sides,
    pipeline: SpikingDiffusionPipeline,
    space: Points,
    resamples: int,
    processes: Processes,
    noisy: NoisyImages | None = None,
) -> tuple[Trials, dict[str, Any]]:
    """The trials, and facts about the network and the reference for the report."""
    evaluation, samples, metric = sides.settings, sides.samples, sides.plan.metrics[0]
    target = sides.target(metric, sides.features_of_reference(processes))
    assert target is not None and metric.distance is not None  # true of all metrics for guidance
    extractor = next(iter(sides.extractors.values()))
    trials = Trials(
        pipeline=pipeline,
        digest=samples.about["sha256"],
        space=space,
        sampling=evaluation.sampling,
        count=samples.count,
        extractor=extractor,
        feature=sides.feature(metric),
        distance=metric.distance(target),
        resamples=resamples,
        noisy=noisy,
        work=sides.plan.work,
        processes=processes,
    )
    statistics = evaluation.fad_statistics if sides.knows(metric) and metric.network == "fad" else None
    return trials, {
        "weights": {"path": str(extractor.path), "sha256": extractor.about["sha256"]},
        "reference": sides.reference.about
        if statistics is None
        else {"kind": "statistics", "path": str(statistics), "sha256": sha256_of(statistics)},
    }


def compare(trials: Trials, point: Point, seed_sets: list[int], against: Point | None = None) -> Comparison:
    """The metric at a point, and its difference to another point (by default the origin) on the same seeds."""
    origin = trials.space.origin if against is None else against

    def difference(seeds: list[int]) -> Estimate:
        change = trials.value(point, seeds) - trials.value(origin, seeds)
        return estimate(change, trials.resampled(point, seeds) - trials.resampled(origin, seeds))

    values = [trials.value(point, [first]) for first in seed_sets]
    return Comparison(
        point,
        trials.value(point, seed_sets),
        difference(seed_sets),
        values,
        [difference([first]) for first in seed_sets],
    )
