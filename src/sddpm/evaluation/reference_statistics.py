"""Makes statistics files: the mean and covariance of a data set's features."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sddpm.data.registry import find_dataset
from sddpm.errors import UserError
from sddpm.evaluation.extraction import extract
from sddpm.evaluation.features.extractor import fad_extractor, inception_extractor
from sddpm.evaluation.images import ImageSet, Watched, open_images
from sddpm.evaluation.metrics.frechet import check_enough
from sddpm.evaluation.metrics.score import Features
from sddpm.evaluation.processes import launched_processes, local_device
from sddpm.evaluation.reduction import sum_moments
from sddpm.evaluation.settings import check_dim, default_work
from sddpm.evaluation.sources import refuse_options_of_names, refuse_preparation
from sddpm.evaluation.statistics_files import StatisticsFile, write_statistics


@dataclass(frozen=True)
class StatisticsSettings:
    """The options of `sddpm stats`. With `fad_weights` the features are FSVAE's latents instead of Inception's. A split
    of None is the training split."""

    images: str
    out: Path
    data: str | None = None
    split: str | None = None
    dim: int = 2048
    sfid: bool = False
    preprocessing: str = "pytorch-fid"
    image_size: int | None = None
    channels: int | None = None
    crop: str | None = None
    resize: str | None = None
    limit: int | None = None
    inception: Path | None = None
    fad_weights: Path | None = None
    device: str = "auto"
    download: bool = False
    work: Path | None = None


def build_statistics(settings: StatisticsSettings) -> StatisticsFile | None:
    """Compute and write mu and sigma (and mu_s, sigma_s). Several processes share the work; the first returns the
    result.

    Raises:
        UserError: invalid images, weights or options; a file that cannot be written.
    """
    check_dim(settings.dim)
    if settings.limit is not None and settings.limit < 1:
        raise UserError(f"`limit` must be at least 1, not {settings.limit}")
    if settings.fad_weights is not None:
        refuse_inception_options(settings)
    refuse_preparation(settings, settings.images)
    refuse_options_of_names(settings, ("data", "split", "download"), settings.images)
    device = local_device(settings.device)
    entry, split = find_dataset(settings.images), settings.split or "train"
    with launched_processes() as processes:
        watched = Watched.of(settings.images if entry is None else settings.data)
        dataset = open_images(
            settings.images,
            data=settings.data,
            split=split,
            image_size=settings.image_size,
            channels=settings.channels,
            crop=settings.crop,
            resize=settings.resize,
            limit=settings.limit,
            download=settings.download,
        )
        if settings.fad_weights is not None:
            extractor = fad_extractor(settings.fad_weights, dataset.channels, device=device)
            kinds = {"pool": "fad"}
        else:
            kinds = {"pool": str(settings.dim)} | ({"spatial": "spatial"} if settings.sfid else {})
            extractor = inception_extractor(
                list(kinds.values()),
                preprocessing=settings.preprocessing,
                weights=settings.inception,
                device=device,
            )
        count = min(len(dataset), settings.limit or len(dataset))
        for length in extractor.lengths.values():
            check_enough(count, "images", length, "a smaller `dim`")
        rows = extract(extractor, ImageSet(dataset, count), settings.work or default_work(), processes)
        found = {kind: sum_moments(Features(name, rows[name]), processes) for kind, name in kinds.items()}
        if watched is not None:
            watched.refuse_changes()
        if not processes.first:
            return None
    about: dict[str, Any] = extractor.about | {
        "images": settings.images,
        "split": split if entry is not None else None,
        "image_size": dataset.image_size,
        "channels": dataset.channels,
        "crop": settings.crop or (entry.crop if entry is not None else None),
        "resize": settings.resize or "bilinear",
        "limit": settings.limit,
        "skipped": len(dataset.skipped),
    }
    statistics = StatisticsFile({kind: features.gaussian for kind, features in found.items()}, about)
    write_statistics(settings.out, statistics)
    return statistics


def refuse_inception_options(settings: StatisticsSettings) -> None:
    """Raise `UserError` for options of Inception's features, which statistics for FAD do not have."""
    usual = {field.name: field.default for field in fields(StatisticsSettings)}
    for name in ("dim", "sfid", "preprocessing", "inception"):
        if getattr(settings, name) != usual[name]:
            raise UserError(f"`{name}` is only for Inception's features: leave it out with `fad_weights`")
