"""The table of metrics: which features each needs, and how it is spoken of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sddpm.choices import check_choice
from sddpm.errors import UserError
from sddpm.evaluation.metrics.frechet import frechet
from sddpm.evaluation.metrics.inception_score import inception_score
from sddpm.evaluation.metrics.kid import kid
from sddpm.evaluation.metrics.precision_recall import precision, recall
from sddpm.evaluation.metrics.score import Score


@dataclass(frozen=True)
class Metric:
    """features: "pool" (of the dimension asked for), "spatial", "logits" or "fad".
    against: what the reference must be: "statistics" (images will do too), "images" or "nothing".
    lower_is_better: which way is better.
    """

    name: str
    compute: Callable[..., Score]
    features: str
    against: str
    lower_is_better: bool
    help: str


METRICS: dict[str, Metric] = {}


def register(metric: Metric) -> None:
    """Add a metric under its name."""
    METRICS[metric.name] = metric


register(Metric("fid", frechet, "pool", "statistics", True, "Fréchet distance in Inception features"))
register(Metric("sfid", frechet, "spatial", "statistics", True, "Fréchet distance in spatial Inception features"))
register(Metric("is", inception_score, "logits", "nothing", False, "Inception score"))
register(Metric("kid", kid, "pool", "images", True, "kernel distance in Inception features, unbiased"))
register(Metric("precision", precision, "pool", "images", False, "share of samples among the real images"))
register(Metric("recall", recall, "pool", "images", False, "share of real images among the samples"))
register(Metric("fad", frechet, "fad", "statistics", True, "Fréchet distance in FSVAE's latent space"))


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
