"""The two sides of a comparison: the samples, which are made first if needed, and the reference."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from sddpm.data.dataset import ImageDataset
from sddpm.data.registry import find_dataset, named_dataset
from sddpm.errors import UserError
from sddpm.evaluation.images import ImageSet, Watched, check_alike, open_images
from sddpm.evaluation.npz_images import NpzImages
from sddpm.evaluation.processes import Processes
from sddpm.evaluation.sampling import (
    SamplingSettings,
    described,
    find_source,
    is_model,
    label_of,
    model_digest,
    sample_images,
    sample_labels,
)
from sddpm.evaluation.settings import EvaluationSettings, Plan, TrainingData
from sddpm.evaluation.statistics_files import StatisticsFile, holds_images, is_statistics_file, read_statistics
from sddpm.hashes import sha256_of
from sddpm.opening.files import user_path
from sddpm.pipelines import load_pipeline
from sddpm.pipelines.class_guidance import check_guidance

NOT_READ = {
    ".onnx": "give the model that was exported, or an .npz of samples drawn from it",
    ".npy": "give an .npz of images in arr_0",
}
"""Files that could be taken for samples, and what to give instead."""


@dataclass(frozen=True)
class Samples:
    """The images to evaluate. `make` samples them, if they come from a model; `about` describes them.

    skipped: (name, reason) of unusable images; it can grow while images are read. watched: the files that must not
    change. labelled: whether the class of each image is known.
    """

    name: str
    channels: int
    image_size: int
    count: int
    make: Callable[[Processes], ImageSet]
    about: dict[str, Any]
    skipped: list[tuple[str, str]] = field(default_factory=list)
    watched: Watched | None = None
    labelled: bool = False


@dataclass(frozen=True)
class Reference:
    """The reference of a comparison: images, or statistics, or both (an .npz of mu, sigma and arr_0), or nothing, for
    scores that need no reference.

    split, crop: None if unknown.
    skipped, watched: as in `Samples`.
    """

    about: dict[str, Any]
    images: ImageSet | None = None
    statistics: StatisticsFile | None = None
    split: str | None = None
    crop: str | None = None
    skipped: list[tuple[str, str]] = field(default_factory=list)
    watched: Watched | None = None


def open_samples(settings: EvaluationSettings, plan: Plan, device: torch.device) -> Samples:
    """The samples of a model, or images. Raises `UserError` if there are fewer than requested, or none."""
    path = find_source(settings.source)
    if is_model(path):
        return _model_samples(path, settings, plan, device)
    if (kind := path.suffix.lower()) in NOT_READ and path.is_file():
        raise UserError(f"evaluate does not read {kind} files: {NOT_READ[kind]}")
    refuse_preparation(settings, settings.source, settings.reference)
    for option in fields(SamplingSettings):
        if getattr(settings.sampling, option.name) != option.default:
            raise UserError(f"`{option.name}` is only for models: leave it out, {settings.source} holds images")
    name, named, split = named_dataset(settings.source)
    watched = Watched.of(settings.data if named else str(path))
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
        raise UserError(f"{settings.source} has {len(dataset):,} images, fewer than `samples={settings.samples}`")
    count = min(settings.samples or plan.protocol.samples, len(dataset))
    about = {
        "kind": "images",
        "path": settings.source,
        "data": settings.data if named else None,
        "split": split or "train" if named else None,
        "count": count,
        "image_size": dataset.image_size,
        "channels": dataset.channels,
        "crop": settings.crop,
        "resize": settings.resize or "bilinear",
    }
    return Samples(
        settings.source,
        dataset.channels,
        dataset.image_size,
        count,
        lambda processes: ImageSet(dataset, count),
        about,
        dataset.skipped,
        watched,
        dataset.labels is not None,
    )


def _model_samples(path: Path, settings: EvaluationSettings, plan: Plan, device: torch.device) -> Samples:
    pipeline = load_pipeline(path, device)
    pipeline.require_images()
    size, channels = pipeline.unet.config.sample_size, pipeline.unet.config.in_channels
    if not isinstance(size, int) or channels not in (1, 3):
        raise UserError(
            f"{path} makes images of {channels} channels, {size} pixels: metrics need square grey or RGB images"
        )
    if settings.image_size not in (None, size) or settings.channels not in (None, channels):
        raise UserError(f"{path} makes images of {size}x{size} pixels, {channels} channels; these cannot be changed")
    refuse_preparation(settings, settings.reference)
    count = settings.samples or plan.protocol.samples
    digest = model_digest(path)
    sampling = settings.sampling
    check_guidance(pipeline.num_classes, label_of(sampling, pipeline), sampling.guidance_scale)
    options = described(sampling, pipeline)
    first = options.pop("first_seed")
    about = {
        "kind": "model",
        "path": str(path),
        "sha256": digest,
        "count": count,
        "seeds": [first, first + count - 1],
        "class": options.pop("class_label"),
        **options,
    }
    return Samples(
        str(path),
        channels,
        size,
        count,
        lambda processes: ImageSet(sample_images(pipeline, digest, sampling, count, plan.work, processes), count),
        about,
        labelled=sample_labels(sampling, pipeline, 1) is not None,
    )


def refuse_preparation(settings: Any, *sides: str | None) -> None:
    """Raise `UserError` if crop or resize options are given but no side has images that can be cropped or resized."""
    given = [name for name in ("crop", "resize") if getattr(settings, name) is not None]
    if given and not any(side is not None and not side.lower().endswith(".npz") for side in sides):
        raise UserError(
            f"images in an .npz, and samples of a model, are not cropped or resized: leave out `{given[0]}`"
        )


def refuse_options_of_names(settings: Any, options: Sequence[str], *names: str | None) -> None:
    """Raise `UserError` if one of these options, which are for data sets given by name, is given but no data set is."""
    if any(name is not None and find_dataset(name) is not None for name in names):
        return
    for option in options:
        if getattr(settings, option) not in (None, False):
            raise UserError(f"`{option}` is only for a data set given by name: leave it out")


def refuse_idle_place(given: EvaluationSettings, settings: EvaluationSettings) -> None:
    """Raise `UserError` if the place of a data set, or its download, is given but nothing is a data set.

    settings: the given settings, completed from a run.
    """
    name, named, _ = named_dataset(settings.source)
    copied = settings.training.images if settings.copies and settings.training is not None else None
    refuse_options_of_names(given, ("data", "download"), name if named else None, settings.reference, copied)


def open_reference(settings: EvaluationSettings, plan: Plan, samples: Samples) -> Reference:
    """The reference, in the size of the samples if it is a data set given by name.

    Raises:
        UserError: none is given; images of another size or mode than the samples; a damaged statistics file.
    """
    if settings.reference is None:
        return Reference({"kind": "none"})
    path = user_path(settings.reference)
    if is_statistics_file(path):
        for name in ("limit_reference", "split"):
            if getattr(settings, name) is not None:
                raise UserError(f"`{name}` is only for images: leave it out, {settings.reference} holds statistics")
        statistics = read_statistics(path)
        about = {
            "kind": "statistics",
            "path": settings.reference,
            "sha256": sha256_of(path),
            "made_with": statistics.about,
        }
        images = _images_beside(path, samples) if holds_images(path) else None
        return Reference(about, images, statistics, statistics.about.get("split"), statistics.about.get("crop"))
    entry = find_dataset(settings.reference)
    refuse_options_of_names(settings, ("split",), settings.reference)
    watched = Watched.of(str(path) if entry is None else settings.data)
    dataset = open_reference_images(settings, plan.split, samples, settings.limit_reference)
    count = min(len(dataset), settings.limit_reference or len(dataset))
    split = plan.split if entry is not None else None
    crop = settings.crop or (entry.crop if entry is not None else None)
    about = {
        "kind": "images",
        "path": settings.reference,
        "data": settings.data,
        "split": split,
        "count": count,
        "image_size": dataset.image_size,
        "channels": dataset.channels,
        "crop": crop,
        "resize": settings.resize or "bilinear",
    }
    return Reference(about, ImageSet(dataset, count), None, split, crop, dataset.skipped, watched)


def _images_beside(path: Path, samples: Samples) -> ImageSet:
    """The images in a statistics file, for the metrics that need them."""
    images = NpzImages(path)
    check_alike((samples.channels, samples.image_size), images)
    return ImageSet(images, len(images))


def open_reference_images(
    settings: EvaluationSettings, split: str, samples: Samples, limit: int | None = None
) -> ImageDataset:
    """The reference's images of one split; data sets given by name are resized to the samples' size."""
    assert settings.reference is not None
    named = find_dataset(settings.reference) is not None
    dataset = open_images(
        settings.reference if named else str(user_path(settings.reference)),
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


def open_training(
    settings: EvaluationSettings, samples: Samples, reference: Reference
) -> tuple[ImageDataset | None, str]:
    """The images among which copies are searched, or None and the reason ("" if no search was requested).

    They are those of `settings.training`; else the training split of a reference that is a data set, else the images
    of the reference.

    Raises:
        UserError: required images are missing.
    """
    training = settings.training
    if not settings.copies:
        return None, ""
    if training is None and reference.images is None:
        return None, "no training images are known: give `training`"
    if training is None:
        training = TrainingData(
            images=str(settings.reference),
            data=settings.data,
            crop=settings.crop,
            resize=settings.resize,
            required=False,
            image_size=settings.image_size,
            channels=settings.channels,
        )
    same = reference.split in (None, training.split) and training.are(settings)
    if same and reference.images is not None and isinstance(reference.images.source, ImageDataset):
        return reference.images.source, ""
    try:
        wanted = replace(
            settings,
            reference=training.images,
            data=training.data,
            crop=training.crop,
            resize=training.resize,
            image_size=training.image_size,
            channels=training.channels,
        )
        return open_reference_images(wanted, training.split, samples, training.limit), ""
    except UserError as error:
        if training.required:
            raise
        return None, str(error)


def other_crop(settings: EvaluationSettings, reference: Reference) -> str | None:
    """The crop of the training images, if the reference is the same data set with another crop; else None."""
    if settings.training is None or reference.crop is None:
        return None
    about = reference.about
    entry = find_dataset(str(about["made_with"].get("images") if about["kind"] == "statistics" else about["path"]))
    trained = find_dataset(settings.training.images)
    crop = settings.training.crop or (entry.crop if entry is not None else None)
    return crop if entry is not None and entry is trained and crop != reference.crop else None
