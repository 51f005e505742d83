"""By default a run is compared with its own training images."""

from dataclasses import replace

from sddpm.data.config import DataConfig, read_run_data
from sddpm.data.registry import find_dataset
from sddpm.evaluation.metrics import find_metrics
from sddpm.evaluation.protocols import find_protocol
from sddpm.evaluation.sampling import find_source, is_model
from sddpm.evaluation.settings import EvaluationSettings, TrainingData


def with_run_data(settings: EvaluationSettings) -> EvaluationSettings:
    """The settings, completed from the run to evaluate: its training images as `reference` and `training`, with their
    place, size, colour, crop, filter and number.

    A given reference is prepared like the run's images only if it is the same data. If the source is not a run, or a
    released model without its config, the settings are returned unchanged.

    Raises:
        UserError: the run's config.yaml is damaged.
    """
    run = _data_of(settings.source)
    if run is None:
        return settings
    trained, protocol = _training_data(run), find_protocol(settings.protocol)
    compared = any(metric.against != "nothing" for metric in find_metrics(settings.metrics or protocol.metrics))
    reference = settings.reference or (trained.images if compared else None)
    same = reference is not None and same_images(reference, trained.images)
    elsewhere = reference is not None and not same and find_dataset(reference) is not None  # `data` is the reference's
    place = None if elsewhere else settings.data
    training = settings.training or TrainingData(trained.images, place, required=False)
    if same_images(training.images, trained.images):
        training = replace(trained, data=training.data or trained.data, required=training.required)
    if reference is None or not same:
        return replace(settings, training=training)
    split = settings.split or protocol.split
    whole = find_dataset(reference) is not None and split != run.split  # a limit applies to the training split only
    return replace(
        settings,
        reference=reference,
        data=settings.data or trained.data,
        image_size=settings.image_size if settings.image_size is not None else trained.image_size,
        channels=settings.channels if settings.channels is not None else trained.channels,
        crop=settings.crop or trained.crop,
        resize=settings.resize or trained.resize,
        limit_reference=settings.limit_reference if settings.limit_reference is not None or whole else trained.limit,
        training=training,
    )


def same_images(a: str, b: str) -> bool:
    """Whether two references are the same: the same data set, in any spelling, or the same path."""
    entry = find_dataset(a)
    return a == b or (entry is not None and entry is find_dataset(b))


def _data_of(source: str) -> DataConfig | None:
    """The data section of a run or released model; None if it is unknown, also for images that a release does not
    name."""
    path = find_source(source)
    run = read_run_data(path) if is_model(path) else None
    return None if run is not None and run.dataset == "folder" and run.path is None else run


def _training_data(run: DataConfig) -> TrainingData:
    """The training data: a data set by name, or a folder by its path."""
    own = run.dataset == "folder" and run.path is not None
    return TrainingData(
        images=str(run.path) if own else run.dataset,
        data=None if own else run.path,
        crop=run.crop,
        resize=run.resize,
        image_size=run.image_size if own else None,  # data sets given by name are resized to the samples' size anyway
        channels=run.channels,
        limit=run.limit,
    )
