"""Statistics files of one's own: the mean and covariance of a data set's features."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sddpm.data.registry import find_dataset
from sddpm.errors import UserError
from sddpm.evaluation.extraction import extract
from sddpm.evaluation.features.extractor import fad_extractor, inception_extractor
from sddpm.evaluation.images import ImageSet, open_images
from sddpm.evaluation.metrics.score import Features
from sddpm.evaluation.processes import launched_processes
from sddpm.evaluation.settings import DIMS, default_work
from sddpm.evaluation.statistics_files import StatisticsFile, write_statistics
from sddpm.pipelines.devices import pick_device


@dataclass(frozen=True)
class StatisticsSettings:
    """As the options of `sddpm stats`. With `fad_weights` the features are FSVAE's latents instead of Inception's."""

    images: str
    out: Path
    data: str | None = None
    split: str = "train"
    dim: int = 2048
    sfid: bool = False
    preprocessing: str = "pytorch-fid"
    image_size: int | None = None
    channels: int | None = None
    crop: str | None = None
    resize: str = "bilinear"
    limit: int | None = None
    inception: Path | None = None
    fad_weights: Path | None = None
    device: str = "auto"
    download: bool = False
    work: Path | None = None


def build_statistics(settings: StatisticsSettings) -> StatisticsFile | None:
    """Compute and write mu and sigma (and mu_s, sigma_s). Several processes share the work; the first returns it.

    Raises:
        UserError: images, weights or options that cannot be used; a file that cannot be written.
    """
    if settings.dim not in DIMS:
        raise UserError(f"--dim must be one of {', '.join(map(str, DIMS))}, not {settings.dim}")
    device = pick_device(settings.device)
    with launched_processes() as processes:
        dataset = open_images(
            settings.images,
            data=settings.data,
            split=settings.split,
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
        rows = extract(extractor, ImageSet(dataset, len(dataset)), settings.work or default_work(), processes)
        if not processes.first:
            return None
    about: dict[str, Any] = extractor.about | {
        "images": settings.images,
        "split": settings.split if find_dataset(settings.images) is not None else None,
        "image_size": dataset.image_size,
        "channels": dataset.channels,
        "crop": settings.crop,
        "resize": settings.resize,
        "skipped": len(dataset.skipped),
    }
    gaussians = {kind: Features(name, rows[name]).gaussian for kind, name in kinds.items()}
    statistics = StatisticsFile(gaussians, about)
    write_statistics(settings.out, statistics)
    return statistics
