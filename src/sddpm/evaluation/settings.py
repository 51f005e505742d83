"""The settings of an evaluation."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from sddpm.data.download import default_cache
from sddpm.errors import UserError
from sddpm.evaluation.metrics.registry import Metric, find_metrics
from sddpm.evaluation.protocols import Protocol, find_protocol
from sddpm.evaluation.sampling import SamplingSettings

DIMS = (64, 192, 768, 2048)


def default_work() -> Path:
    """Where samples and features are kept unless said otherwise: `evaluation` in the cache folder."""
    return default_cache() / "evaluation"


@dataclass(frozen=True)
class TrainingData:
    """The images that a model was trained on.

    images: a data set's name, or a folder, zip or .npz.
    data: where a data set known by name lies.
    crop, resize, image_size, channels: how they were prepared; None: as `open_dataset` does it by itself.
    required: whether it is an error if they are not here.
    split, limit: of them, the first so many of this split; None: all.
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
        """Whether these are the images of the settings' reference, as many and prepared in the same way."""
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
    """As the options of `sddpm evaluate`; None means as the protocol says, or as the images are.

    source: a saved model, a folder, zip or .npz of images, or a data set and its split as NAME:SPLIT.
    reference: a data set's name, a folder, zip or .npz of images, or a statistics file.
    data: where data sets known by name lie.
    image_size, channels, crop, resize: to which, and how, images of data sets, folders and zips are brought.
    limit_reference: the first so many reference images only.
    training: among which copies are looked for; None: those that a run was trained on, else the training split of the
    reference, if it has images.

    Of a run, what is not given is as the run's own data (`with_run_data`).
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
    """Raise `UserError` unless Inception has features of that length."""
    if dim not in DIMS:
        raise UserError(f"`dim` must be one of {', '.join(map(str, DIMS))}, not {dim}")


def make_plan(settings: EvaluationSettings) -> Plan:
    """Fill in what the protocol says. Raises `UserError` for invalid values."""
    protocol = find_protocol(settings.protocol)
    dim = protocol.dim if settings.dim is None else settings.dim
    check_dim(dim)
    if settings.samples is not None and settings.samples < 1:
        raise UserError(f"`samples` must be at least 1, not {settings.samples}")
    for name in ("limit_reference", "image_size"):
        if (value := getattr(settings, name)) is not None and value < 1:
            raise UserError(f"`{name}` must be at least 1, not {value}")
    metrics = find_metrics(settings.metrics or protocol.metrics)
    for metric in metrics:
        if metric.network == "fad" and settings.fad_weights is None:
            raise UserError(f"{metric.name} needs `fad_weights=PATH`, the autoencoder of FSVAE for this data set")
        statistics_do = metric.network == "fad" and metric.against == "statistics"
        known = statistics_do and settings.fad_statistics is not None
        if settings.reference is None and metric.against != "nothing" and not known:
            raise UserError(
                f"{metric.name} compares with other images: give `reference`, a data set, a folder, zip or .npz of "
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
