"""The table of metrics: the inputs of each, its computation and its name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sddpm.choices import check_choice
from sddpm.errors import UserError
from sddpm.evaluation.metrics.distances import Distance, frechet_to, kid_to
from sddpm.evaluation.metrics.frechet import check_frechet, frechet
from sddpm.evaluation.metrics.inception_score import check_inception_score, inception_score
from sddpm.evaluation.metrics.kid import check_kid, kid
from sddpm.evaluation.metrics.precision_recall import check_precision_recall, precision, recall
from sddpm.evaluation.metrics.score import Features, Score, check_minimum
from sddpm.registry import register, registered

FEATURES = {"pool": "inception", "spatial": "inception", "logits": "inception", "fad": "fad", "pixels": None}
"""The features, and the network that computes them: Inception's pooled features (of the given length), its spatial
ones, its logits; FSVAE's latents; or the pixels themselves, 0 to 255, which need no network."""
AGAINST = ("statistics", "images", "nothing")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number for samples, or for samples and a reference.

    name: the name of the metric. help: a short description.
    compute: (samples, reference, **options) -> `Score` or a number, of `Features`; a metric that needs no reference
    gets
        none.
    features: a name of `FEATURES`. labels: whether the classes of the images are also needed (`Features.labels`).
    against: the kind of reference: "statistics" (a Gaussian; images also work), "images" or "nothing".
    lower_is_better: whether lower values are better.
    options: {keyword of compute: field of `EvaluationSettings` with its value}.
    interval: whether compute accepts `interval=True` and then returns a 95 % interval.
    minimum: smallest number of samples and of reference images.
    check: (`Counts`, **options) raises `UserError` if there are too few images for the options; called before sampling.
    distance: reference -> `Distance`, for guidance, which resamples; None: guidance cannot use this metric.
    unbiased: whether the value for few samples equals, on average, that for many. With a biased metric, few samples
    that
        vary less than the data can have the lower value (Chong & Forsyth, 2020).
    """

    name: str
    compute: Callable[..., Score | float]
    help: str = ""
    features: str = "pool"
    labels: bool = False
    against: str = "images"
    lower_is_better: bool = True
    options: Mapping[str, str] = field(default_factory=dict)
    interval: bool = False
    minimum: int = 1
    check: Callable[..., None] = check_minimum
    distance: Callable[[Features], Distance] | None = None
    unbiased: bool = False

    @property
    def network(self) -> str | None:
        """The feature network: "inception", "fad" or None."""
        return FEATURES[self.features]

    def feature(self, dim: int) -> str:
        """The name of its features in their extractor, for `dim`."""
        return str(dim) if self.features == "pool" else self.features

    def label(self, dim: int) -> str:
        """The label of its values: with the length of the features if there are several lengths."""
        return f"{self.name}-{dim}" if self.features == "pool" else self.name

    def keywords(self, settings: Any) -> dict[str, Any]:
        """The keywords of `compute` and `check`, from the fields of `settings`."""
        found = {keyword: getattr(settings, name) for keyword, name in self.options.items()}
        return found | ({"interval": settings.interval} if self.interval else {})


METRICS: dict[str, Metric] = {}


def register_metric(name: str, compute: Callable[..., Score | float], **record: Any) -> None:
    """Add a metric: `evaluate` and the command line can then use it, and guidance if it has a `distance`.

    Args:
        name: a new one, e.g. "cmmd".
        compute: (samples, reference, **options) -> `Score` or a number, of `Features`; without `reference` for a metric
            with against="nothing".
        record: the other fields of `Metric`, such as features="pixels" or against="nothing".

    Raises:
        UserError: a name that is invalid or taken; unknown features or kind of reference; a `distance` that guidance
            cannot use.
    """
    metric = Metric(name=name, compute=compute, **record)
    check_choice("features", metric.features, FEATURES)
    check_choice("against", metric.against, AGAINST)
    if metric.distance is not None and (
        metric.against == "nothing" or not metric.lower_is_better or metric.network is None
    ):
        raise UserError(f"{name}: `distance` needs a reference, features of a network and lower_is_better=True")
    register(METRICS, "metric", name, metric)


def find_metrics(names: Sequence[str]) -> list[Metric]:
    """Metrics by name, in the given order, without repetitions.

    Raises:
        UserError: an unknown name, or none.
    """
    if not names:
        raise UserError(f"no metric given: choose from {', '.join(METRICS)}")
    for name in names:
        registered(METRICS, "metric", name)
    return [METRICS[name] for name in dict.fromkeys(names)]


_GAUSSIAN: dict[str, Any] = {
    "against": "statistics",
    "interval": True,
    "check": check_frechet,
    "distance": lambda reference: frechet_to(reference.gaussian),
}
_MANIFOLD: dict[str, Any] = {"lower_is_better": False, "interval": True, "check": check_precision_recall}
register_metric("fid", frechet, help="Fréchet distance in Inception features", **_GAUSSIAN)
register_metric("sfid", frechet, help="Fréchet distance in spatial features", features="spatial", **_GAUSSIAN)
register_metric(
    "is",
    inception_score,
    help="Inception score",
    features="logits",
    against="nothing",
    lower_is_better=False,
    options={"splits": "splits"},
    interval=True,
    check=check_inception_score,
)
_KERNEL: dict[str, Any] = {
    "options": {"subsets": "kid_subsets", "subset_size": "kid_subset_size"},
    "interval": True,
    "check": check_kid,
    "distance": kid_to,
    "unbiased": True,
}
register_metric("kid", kid, help="kernel distance in Inception features, unbiased", **_KERNEL)
register_metric("precision", precision, help="share of samples within the manifold of the real images", **_MANIFOLD)
register_metric("recall", recall, help="share of real images within the manifold of the samples", **_MANIFOLD)
register_metric("fad", frechet, help="Fréchet distance in FSVAE's latent space", features="fad", **_GAUSSIAN)
register_metric("kad", kid, help="kernel distance in FSVAE's latent space, unbiased", features="fad", **_KERNEL)
