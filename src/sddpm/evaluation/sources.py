"""The two sides of a comparison: the samples, which may have to be made first, and the reference."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sddpm.data.dataset import ImageDataset
from sddpm.data.registry import find_dataset
from sddpm.errors import UserError
from sddpm.evaluation.images import ImageSet, check_alike, open_images, snapshot
from sddpm.evaluation.processes import Processes
from sddpm.evaluation.sampling import is_model, model_digest, sample_images
from sddpm.evaluation.settings import EvaluationSettings, Plan
from sddpm.evaluation.statistics_files import StatisticsFile, is_statistics_file, read_statistics
from sddpm.pipelines import load_pipeline
from sddpm.pipelines.threshold_guidance import to_json


@dataclass(frozen=True)
class Samples:
    """Images under test. `make` samples them, if they come from a model; `about` says what they are.

    watched: the path whose files must stay as they are, with their state at the beginning.
    """

    name: str
    channels: int
    image_size: int
    count: int
    make: Callable[[Processes], ImageSet]
    about: dict[str, Any]
    skipped: int = 0
    watched: tuple[Path, list[tuple[str, int, int]]] | None = None


@dataclass(frozen=True)
class Reference:
    """What the samples are compared with: images, or statistics alone, or (for scores that need none) nothing."""

    about: dict[str, Any]
    images: ImageSet | None = None
    statistics: StatisticsFile | None = None
    split: str | None = None
    skipped: int = 0


def open_samples(settings: EvaluationSettings, plan: Plan, device: torch.device) -> Samples:
    """The samples of a model, or images. Raises `UserError` if there are fewer than asked for, or none."""
    path = Path(settings.source).expanduser()
    if is_model(path):
        return _model_samples(path, settings, plan, device)
    name, _, split = settings.source.partition(":")
    named = not path.exists() and find_dataset(name) is not None
    before = None if named or not path.exists() else (path, snapshot(path))
    dataset = open_images(
        name if named else str(path),
        data=settings.data,
        split=split or "train",
        image_size=settings.image_size,
        channels=settings.channels,
        crop=settings.crop,
        resize=settings.resize,
        limit=settings.samples or plan.protocol.samples,
        download=settings.download,
    )
    if settings.samples is not None and settings.samples > len(dataset):
        raise UserError(f"{settings.source} holds {len(dataset):,} images, fewer than --samples {settings.samples:,}")
    count = min(settings.samples or plan.protocol.samples, len(dataset))
    about = {"kind": "images", "path": settings.source, "count": count}
    return Samples(
        settings.source,
        dataset.channels,
        dataset.image_size,
        count,
        lambda processes: ImageSet(dataset, count),
        about,
        len(dataset.skipped),
        before,
    )


def _model_samples(path: Path, settings: EvaluationSettings, plan: Plan, device: torch.device) -> Samples:
    pipeline = load_pipeline(path, device)
    size, channels = pipeline.unet.config.sample_size, pipeline.unet.config.in_channels
    if not isinstance(size, int) or channels not in (1, 3):
        raise UserError(
            f"{path} makes images of {channels} channels, {size} pixels: only square grey or RGB ones count"
        )
    if settings.image_size not in (None, size) or settings.channels not in (None, channels):
        raise UserError(f"{path} makes images of {size}x{size} pixels, {channels} channels; these cannot be changed")
    count = settings.samples or plan.protocol.samples
    digest = model_digest(path)
    s = settings.sampling
    if s.v_threshold is None:
        s = replace(s, v_threshold=pipeline.guided_thresholds)
    about = {
        "kind": "model",
        "path": str(path),
        "sha256": digest,
        "count": count,
        "seeds": [s.first_seed, s.first_seed + count - 1],
        "solver": s.solver,
        "steps": s.steps,
        "eta": s.eta,
        "v_threshold": None if s.v_threshold is None else to_json(s.v_threshold),
        "batch_size": s.batch_size,
        "engine": pipeline.resolve_engine(s.engine, s.steps),
    }
    return Samples(
        str(path),
        channels,
        size,
        count,
        lambda processes: ImageSet(sample_images(pipeline, digest, s, count, plan.work, processes), count),
        about,
    )


def open_reference(settings: EvaluationSettings, plan: Plan, samples: Samples) -> Reference:
    """The reference, in the size of the samples if it is a data set known by name.

    Raises:
        UserError: none is given; images of another size or mode than the samples; a damaged statistics file.
    """
    if settings.reference is None:
        return Reference({"kind": "none"})
    path = Path(settings.reference).expanduser()
    if is_statistics_file(path):
        statistics = read_statistics(path)
        about = {"kind": "statistics", "path": settings.reference, "made_with": statistics.about}
        return Reference(about, None, statistics, statistics.about.get("split"))
    dataset = open_reference_images(settings, plan.split, samples, settings.limit_reference)
    count = min(len(dataset), settings.limit_reference or len(dataset))
    split = plan.split if find_dataset(settings.reference) is not None else None
    about = {
        "kind": "images",
        "path": settings.reference,
        "data": settings.data,
        "split": split,
        "count": count,
        "image_size": dataset.image_size,
        "channels": dataset.channels,
        "crop": settings.crop,
        "resize": settings.resize,
    }
    return Reference(about, ImageSet(dataset, count), None, split, len(dataset.skipped))


def open_reference_images(
    settings: EvaluationSettings, split: str, samples: Samples, limit: int | None = None
) -> ImageDataset:
    """The reference's images of one split; data sets by name are brought to the samples' size."""
    assert settings.reference is not None
    named = find_dataset(settings.reference) is not None
    dataset = open_images(
        settings.reference if named else str(Path(settings.reference).expanduser()),
        data=settings.data,
        split=split,
        image_size=samples.image_size if named else settings.image_size,
        channels=settings.channels,
        crop=settings.crop,
        resize=settings.resize,
        limit=limit,
        download=settings.download,
    )
    check_alike((samples.channels, samples.image_size), dataset)
    return dataset
