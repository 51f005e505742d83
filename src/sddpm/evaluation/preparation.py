"""What a comparison needs: feature networks, known statistics, and enough images on both sides."""

from typing import Any

from sddpm.errors import UserError
from sddpm.evaluation.extraction import extract
from sddpm.evaluation.features.extractor import Extractor, fad_extractor, inception_extractor
from sddpm.evaluation.images import ImageSet
from sddpm.evaluation.metrics import Features, Metric
from sddpm.evaluation.metrics.frechet import check_enough
from sddpm.evaluation.metrics.inception_score import check_splits
from sddpm.evaluation.metrics.kid import check_subsets
from sddpm.evaluation.metrics.precision_recall import check_neighbours
from sddpm.evaluation.metrics.score import check_interval
from sddpm.evaluation.processes import Processes
from sddpm.evaluation.settings import EvaluationSettings, Plan
from sddpm.evaluation.sources import Reference, Samples
from sddpm.evaluation.statistics import Gaussian
from sddpm.evaluation.statistics_files import read_statistics


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
                f"{settings.reference} was made with {made_with} preprocessing: choose `preprocessing={made_with}`"
            )
        gaussians = reference.statistics.gaussians
        files |= {str(plan.dim): gaussians["pool"]}
        files |= {"spatial": gaussians["spatial"]} if "spatial" in gaussians else {}
    for metric in plan.metrics:
        name = feature_name(metric, plan)
        if metric.against == "nothing" or name in targets:
            continue
        if metric.against == "images" and reference.images is None:
            raise UserError(f"{metric.name} needs images as `reference`, which {settings.reference} does not hold")
        if name not in files and reference.images is None:
            where = "`fad_statistics` is" if name == "fad" else "images, or mu_s and sigma_s in the file, are"
            raise UserError(f"{metric.name} cannot be measured against {settings.reference} alone: {where} needed")
        if name in files:
            targets[name] = Features(name, None, _fitting(files[name], name, metric, extractors))
    return targets


def _fitting(gaussian: Gaussian, name: str, metric: Metric, extractors: dict[str, Extractor]) -> Gaussian:
    length = extractors["fad" if name == "fad" else "inception"].lengths[name]
    if gaussian.dim != length:
        raise UserError(
            f"the statistics file for {metric.name} has {gaussian.dim} dimensions, the features {length}: "
            "choose another file" + ("" if name in ("fad", "spatial") else ", or `dim`")
        )
    if gaussian.count is not None:
        check_enough(gaussian.count, "reference images", gaussian.dim)
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
    images = None if reference.images is None else reference.images.count
    for metric in plan.metrics:
        if metric.against == "statistics":
            name = feature_name(metric, plan)
            check_enough(samples.count, "samples", lengths[name])
            if name not in targets and images is not None:
                check_enough(images, "reference images", lengths[name])
        if metric.name == "is":
            check_splits(samples.count, settings.splits, settings.interval)
        if metric.name == "kid" and images is not None:
            size = min(settings.kid_subset_size, samples.count, images)
            check_subsets(settings.kid_subsets, size, settings.interval)
        if metric.name in ("precision", "recall") and images is not None:
            check_neighbours(samples.count, images)


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
