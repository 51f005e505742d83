"""The settings of an evaluation."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from sddpm.data.download import default_cache
from sddpm.errors import UserError
from sddpm.evaluation.metrics.registry import METRICS, Metric, find_metrics
from sddpm.evaluation.protocols import Protocol, find_protocol
from sddpm.evaluation.sampling import SamplingSettings

DIMS = (64, 192, 768, 2048)


def default_work() -> Path:
    """The default folder for samples and features: `evaluation` in the cache folder."""
    return default_cache() / "evaluation"


@dataclass(frozen=True)
class TrainingData:
    """The training images of a model.

    images: a data set's name, or a folder, zip or .npz.
    data: folder of a data set that is given by name.
    crop, resize, image_size, channels: how they were prepared; None: the defaults of `open_dataset`.
    required: whether it is an error if they are missing.
    split, limit: the first `limit` images of this split; None: all.
    """

    images: str
    data: str | None = None
    crop: str | None = None
    resize: str | None = None
    required: bool = True
    image_size: int | None = None
    channels: int | None = None
    split: str = "train"
    limit: int | None = None

    def are(self, settings: "EvaluationSettings") -> bool:
        """Whether these are the reference images of the settings, in the same number and preparation."""
        here = replace(
            self,
            images=settings.reference or "",
            data=settings.data,
            crop=settings.crop,
            resize=settings.resize,
            image_size=settings.image_size,
            channels=settings.channels,
            limit=settings.limit_reference,
        )
        return self == here


@dataclass(frozen=True)
class EvaluationSettings:
    """The options of `sddpm evaluate`; None means the value of the protocol, or of the images.

    source: a saved model, a folder, zip or .npz of images, or a data set and its split as NAME:SPLIT.
    reference: a data set's name, a folder, zip or .npz of images, or a statistics file.
    data: folder of data sets that are given by name.
    image_size, channels, crop, resize: size, colour, crop and filter for images of data sets, folders and zips.
    limit_reference: use only the first so many reference images.
    training: the images among which copies are searched; None: the training images of a run, else the training split of
    the reference, if it has images.

    For a run, missing values are those of the run's own data (`with_run_data`).
    """

    source: str
    reference: str | None = None
    data: str | None = None
    protocol: str = "sddpm"
    metrics: tuple[str, ...] | None = None
    samples: int | None = None
    split: str | None = None
    preprocessing: str | None = None
    dim: int | None = None
    image_size: int | None = None
    channels: int | None = None
    crop: str | None = None
    resize: str | None = None
    limit_reference: int | None = None
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    inception: Path | None = None
    fad_weights: Path | None = None
    fad_statistics: Path | None = None
    kid_subsets: int = 100
    kid_subset_size: int = 1000
    splits: int = 10
    interval: bool = False
    copies: bool = True
    training: TrainingData | None = None
    allow_overlap: bool = False
    device: str = "auto"
    download: bool = False
    work: Path | None = None


@dataclass(frozen=True)
class Plan:
    """The settings with the protocol's values filled in."""

    protocol: Protocol
    metrics: list[Metric]
    split: str
    preprocessing: str
    dim: int
    work: Path


def check_dim(dim: int) -> None:
    """Raise `UserError` unless Inception has features of this length."""
    if dim not in DIMS:
        raise UserError(f"`dim` must be one of {', '.join(map(str, DIMS))}, not {dim}")


def make_plan(settings: EvaluationSettings) -> Plan:
    """Fill in the protocol's values. Raises `UserError` for invalid values."""
    protocol = find_protocol(settings.protocol)
    dim = protocol.dim if settings.dim is None else settings.dim
    check_dim(dim)
    if settings.samples is not None and settings.samples < 1:
        raise UserError(f"`samples` must be at least 1, not {settings.samples}")
    for name in ("limit_reference", "image_size"):
        if (value := getattr(settings, name)) is not None and value < 1:
            raise UserError(f"`{name}` must be at least 1, not {value}")
    metrics = find_metrics(settings.metrics or protocol.metrics)
    refuse_idle_options(settings, metrics)
    for metric in metrics:
        if metric.network == "fad" and settings.fad_weights is None:
            raise UserError(f"{metric.name} needs `fad_weights=PATH`, FSVAE's autoencoder for this data set")
        statistics_do = metric.network == "fad" and metric.against == "statistics"
        known = statistics_do and settings.fad_statistics is not None
        if settings.reference is None and metric.against != "nothing" and not known:
            raise UserError(
                f"{metric.name} needs a reference: give `reference`, a data set, a folder, zip or .npz of "
                "images, or a statistics .npz"
            )
    return Plan(
        protocol,
        metrics,
        settings.split or protocol.split,
        settings.preprocessing or protocol.preprocessing,
        dim,
        settings.work or default_work(),
    )


def refuse_idle_options(settings: EvaluationSettings, metrics: list[Metric]) -> None:
    """Raise `UserError` for options of metrics that are not measured."""
    used = {name for metric in metrics for name in metric.options.values()}
    for option in fields(EvaluationSettings):
        owners = [metric.name for metric in METRICS.values() if option.name in metric.options.values()]
        if owners and option.name not in used and getattr(settings, option.name) != option.default:
            raise UserError(f"`{option.name}` is only for the metric {' or '.join(owners)}: leave it out")
