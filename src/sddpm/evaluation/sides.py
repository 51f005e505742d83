"""The two sides of an evaluation, opened and checked before hours of sampling, and their features."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sddpm.errors import UserError
from sddpm.evaluation.extraction import extract
from sddpm.evaluation.features.extractor import LENGTHS, NETWORKS, Extractor, fad_extractor, inception_extractor
from sddpm.evaluation.images import ImageSet
from sddpm.evaluation.metrics import Counts, Features, Metric
from sddpm.evaluation.metrics.frechet import check_enough
from sddpm.evaluation.metrics.score import check_interval
from sddpm.evaluation.processes import Processes
from sddpm.evaluation.reduction import sum_moments
from sddpm.evaluation.settings import EvaluationSettings, Plan
from sddpm.evaluation.sources import Reference, Samples, open_reference, open_samples
from sddpm.evaluation.statistics import Gaussian
from sddpm.evaluation.statistics_files import read_statistics

Known = tuple[Gaussian, Mapping[str, Any]]
"""A Gaussian from a statistics file, and what the file says about its making, nothing if other software wrote it."""


@dataclass(frozen=True)
class Sides:
    """Samples and reference, with the feature networks to compare them.

    extractors: {"inception": ..., "fad": ...}, those that the metrics need.
    known: {feature: `Known`} of the reference, from statistics files.
    """

    settings: EvaluationSettings
    plan: Plan
    samples: Samples
    reference: Reference
    extractors: Mapping[str, Extractor]
    known: Mapping[str, Known]

    def feature(self, metric: Metric) -> str:
        """The name of a metric's features."""
        return metric.feature(self.plan.dim)

    def knows(self, metric: Metric) -> bool:
        """Whether a metric needs only the reference's statistics, and they are known."""
        return needs_statistics_alone(metric, self.plan, self.known)

    def features_of_samples(self, processes: Processes, images: ImageSet) -> dict[str, Features]:
        """{feature: vectors of the samples} for all metrics; existing features are reused."""
        return self._features(processes, images, self.plan.metrics, "features of samples")

    def features_of_reference(self, processes: Processes) -> dict[str, Features]:
        """{feature: vectors of the reference's images} for the metrics that need them; empty if none does."""
        metrics = [each for each in self.plan.metrics if each.against != "nothing" and not self.knows(each)]
        if self.reference.images is None or not metrics:
            return {}
        return self._features(processes, self.reference.images, metrics, "features of reference")

    def target(self, metric: Metric, of_reference: Mapping[str, Features]) -> Features | None:
        """The reference features for a metric; None for metrics without a reference."""
        name = self.feature(metric)
        if self.knows(metric):
            return Features(name, None, self.known[name][0])
        return None if metric.against == "nothing" else of_reference[name]

    def _features(
        self, processes: Processes, images: ImageSet, metrics: Iterable[Metric], title: str
    ) -> dict[str, Features]:
        names = {self.feature(metric) for metric in metrics}
        found: dict[str, Any] = {"pixels": Pixels(images)} if "pixels" in names else {}
        for extractor in self.extractors.values():
            if names & set(extractor.lengths):
                found |= extract(extractor, images, self.plan.work, processes, title)
        return {name: Features(name, rows, labels=images.labels) for name, rows in found.items()}


class Pixels:
    """The pixels of images as feature vectors [N, C * H * W], uint8, read on demand."""

    def __init__(self, images: ImageSet):
        self._images = images
        self.shape = images.count, images.source.channels * images.source.image_size**2

    def __getitem__(self, index: Any) -> np.ndarray:
        wanted = torch.from_numpy(np.arange(self._images.count)[index])
        return self._images.gather(wanted).flatten(1).numpy()


def needs_statistics_alone(metric: Metric, plan: Plan, known: Mapping[str, Known]) -> bool:
    """Whether a metric needs only the reference's statistics, and they are known."""
    return metric.against == "statistics" and metric.feature(plan.dim) in known


def open_sides(settings: EvaluationSettings, plan: Plan, device: torch.device) -> Sides:
    """Both sides of an evaluation, and the feature networks.

    Raises:
        UserError: sides, weights or statistics that do not fit together, or too few images.
    """
    samples = open_samples(settings, plan, device)
    reference = open_reference(settings, plan, samples)
    known = known_statistics(settings, plan, reference)
    check_counts(settings, plan, samples, reference, known)  # before weights are downloaded
    extractors = open_extractors(settings, plan, samples, device)
    return Sides(settings, plan, samples, reference, extractors, known)


def open_extractors(
    settings: EvaluationSettings, plan: Plan, samples: Samples, device: torch.device
) -> dict[str, Extractor]:
    """The feature networks that the metrics need, by name."""
    found = {}
    names = list(dict.fromkeys(metric.feature(plan.dim) for metric in plan.metrics if metric.network == "inception"))
    if names:
        found["inception"] = inception_extractor(
            names, preprocessing=plan.preprocessing, weights=settings.inception, device=device
        )
    if any(metric.network == "fad" for metric in plan.metrics) and settings.fad_weights is not None:
        found["fad"] = fad_extractor(settings.fad_weights, samples.channels, device=device)
    return found


def known_statistics(settings: EvaluationSettings, plan: Plan, reference: Reference) -> dict[str, Known]:
    """{feature: `Known`} from the statistics files that metrics need, checked against the features.

    Raises:
        UserError: statistics of other features; a metric that needs images or statistics that are missing.
    """
    files: dict[str, Known] = {}
    if settings.fad_statistics is not None:
        of_fad = read_statistics(settings.fad_statistics)
        files["fad"] = of_fad.gaussians["pool"], of_fad.about
    if reference.statistics is not None:
        made_with = reference.about["made_with"].get("preprocessing", plan.preprocessing)
        if made_with != plan.preprocessing:
            raise UserError(
                f"{settings.reference} was made with {made_with} preprocessing: choose `preprocessing={made_with}`"
            )
        gaussians, about = reference.statistics.gaussians, reference.statistics.about
        files[str(plan.dim)] = gaussians["pool"], about
        if "spatial" in gaussians:
            files["spatial"] = gaussians["spatial"], about
    known: dict[str, Known] = {}
    for metric in plan.metrics:
        name = metric.feature(plan.dim)
        if metric.against == "images" and reference.images is None:
            raise UserError(f"{metric.name} needs images as `reference`, and {settings.reference} has none")
        if metric.against != "statistics" or name in known:
            continue
        if name in files:
            known[name] = _fitting(files[name], name, metric)
        elif reference.images is None:
            where = "`fad_statistics` is" if name == "fad" else "images, or mu_s and sigma_s in the file, are"
            raise UserError(f"{metric.name} cannot be measured against {settings.reference} alone: {where} needed")
    return known


def _fitting(known: Known, name: str, metric: Metric) -> Known:
    gaussian, about = known
    length, network = LENGTHS[name], NETWORKS[str(metric.network)]
    if about.get("network", network) != network:
        raise UserError(
            f"the statistics file for {metric.name} has features of {about['network']}, not of {network}: "
            "choose another file"
        )
    if gaussian.dim != length:
        raise UserError(
            f"the statistics file for {metric.name} has {gaussian.dim} dimensions, the features {length}: "
            "choose another file" + (", or `dim`" if metric.features == "pool" else "")
        )
    if gaussian.count is not None:
        check_enough(gaussian.count, "reference images", gaussian.dim)
    return known


def check_counts(
    settings: EvaluationSettings, plan: Plan, samples: Samples, reference: Reference, known: Mapping[str, Known]
) -> None:
    """Raise `UserError` if there are fewer samples or reference images than a metric needs, or the classes that a
    metric needs are unknown."""
    if settings.interval:
        check_interval(samples.count)
    lengths = LENGTHS | {"pixels": samples.channels * samples.image_size**2}
    for metric in plan.metrics:
        from_images = metric.against != "nothing" and not needs_statistics_alone(metric, plan, known)
        compared = reference.images if from_images else None
        images = None if compared is None else compared.count
        counts = Counts(metric.name, samples.count, images, lengths[metric.feature(plan.dim)], metric.minimum)
        metric.check(counts, **metric.keywords(settings))
        if metric.labels:
            for what, labelled in (
                ("samples", samples.labelled),
                ("reference", compared is None or compared.labels is not None),
            ):
                if not labelled:
                    raise UserError(f"{metric.name} needs the classes of the images: those of the {what} are not known")


def with_moments(features: Mapping[str, Features], sides: Sides, processes: Processes) -> dict[str, Features]:
    """The features, with their moments if a metric needs a Gaussian."""
    metrics = sides.plan.metrics
    gaussian = {sides.feature(metric) for metric in metrics if metric.against == "statistics"}
    return {name: sum_moments(x, processes) if name in gaussian else x for name, x in features.items()}
