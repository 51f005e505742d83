"""The table of metrics: what each needs, how it is computed, and how it is spoken of."""

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

FEATURES = {"pool": "inception", "spatial": "inception", "logits": "inception", "fad": "fad", "pixels": None}
"""What images are measured in, and the network that computes it: Inception's pooled features (of the length asked for),
its spatial ones, its logits; FSVAE's latents; or the pixels themselves, 0 to 255, which need no network."""
AGAINST = ("statistics", "images", "nothing")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number of samples, or of samples and a reference.

    name: by which it is asked for. help: what it is, in a few words.
    compute: (samples, reference, **options) -> `Score`, both `Features`; without `reference` for those against nothing.
    features: a name of `FEATURES`. labels: whether the classes of the images are needed too (`Features.labels`).
    against: what the reference must be: "statistics" (a Gaussian is enough; images do as well), "images" or "nothing".
    lower_is_better: which way is better.
    options: {keyword of compute: field of `EvaluationSettings` that it is taken from}.
    interval: whether compute takes `interval=True` and then gives a 95 % interval.
    minimum: images that each side must have.
    check: (`Counts`, **options) raises `UserError` if there are too few images for the options, before any is sampled.
    distance: reference -> `Distance`, for guidance, which resamples; None: guidance cannot go by this metric.
    """

    name: str
    help: str
    compute: Callable[..., Score]
    features: str = "pool"
    labels: bool = False
    against: str = "images"
    lower_is_better: bool = True
    options: Mapping[str, str] = field(default_factory=dict)
    interval: bool = False
    minimum: int = 1
    check: Callable[..., None] = check_minimum
    distance: Callable[[Features], Distance] | None = None

    @property
    def network(self) -> str | None:
        """The feature network: "inception", "fad" or None."""
        return FEATURES[self.features]

    def feature(self, dim: int) -> str:
        """The features it is measured in, by the name that their extractor gives them, where `dim` is asked for."""
        return str(dim) if self.features == "pool" else self.features

    def label(self, dim: int) -> str:
        """How it is called beside a number: with the length of the features where there are several."""
        return f"{self.name}-{dim}" if self.features == "pool" else self.name

    def keywords(self, settings: Any) -> dict[str, Any]:
        """The keywords of `compute` and `check`, from the fields of `settings`."""
        found = {keyword: getattr(settings, name) for keyword, name in self.options.items()}
        return found | ({"interval": settings.interval} if self.interval else {})


METRICS: dict[str, Metric] = {}


def register_metric(metric: Metric) -> Metric:
    """Make a metric known by its name: to `evaluate`, to the command line, and, if it has a `distance`, to
    guidance. One of the same name is replaced.

    Raises:
        UserError: features, or a kind of reference, that there are not; a `distance` of which more is better.
    """
    check_choice("features", metric.features, FEATURES)
    check_choice("against", metric.against, AGAINST)
    if metric.distance is not None and (
        metric.against == "nothing" or not metric.lower_is_better or metric.network is None
    ):
        raise UserError(f"{metric.name}: a distance is to a reference, in features of a network, and lower is better")
    METRICS[metric.name] = metric
    return metric


def find_metrics(names: Sequence[str]) -> list[Metric]:
    """Metrics by name, in the order given, each once.

    Raises:
        UserError: an unknown name, or none.
    """
    if not names:
        raise UserError(f"no metric given: choose among {', '.join(METRICS)}")
    for name in names:
        check_choice("metric", name, METRICS)
    return [METRICS[name] for name in dict.fromkeys(names)]


_GAUSSIAN: dict[str, Any] = {
    "compute": frechet,
    "against": "statistics",
    "interval": True,
    "check": check_frechet,
    "distance": lambda reference: frechet_to(reference.gaussian),
}
_MANIFOLD: dict[str, Any] = {"lower_is_better": False, "interval": True, "check": check_precision_recall}
for _metric in (
    Metric(name="fid", help="Fréchet distance in Inception features", **_GAUSSIAN),
    Metric(name="sfid", help="Fréchet distance in spatial Inception features", features="spatial", **_GAUSSIAN),
    Metric(
        name="is",
        help="Inception score",
        compute=inception_score,
        features="logits",
        against="nothing",
        lower_is_better=False,
        options={"splits": "splits"},
        interval=True,
        check=check_inception_score,
    ),
    Metric(
        name="kid",
        help="kernel distance in Inception features, unbiased",
        compute=kid,
        options={"subsets": "kid_subsets", "subset_size": "kid_subset_size"},
        interval=True,
        check=check_kid,
        distance=kid_to,
    ),
    Metric(name="precision", help="share of samples among the real images", compute=precision, **_MANIFOLD),
    Metric(name="recall", help="share of real images among the samples", compute=recall, **_MANIFOLD),
    Metric(name="fad", help="Fréchet distance in FSVAE's latent space", features="fad", **_GAUSSIAN),
):
    register_metric(_metric)
