"""Fréchet distances between features. FID, sFID and FAD differ only in the features."""

from sddpm.errors import UserError
from sddpm.evaluation.metrics.score import Counts, Features, Score, group, jackknife
from sddpm.evaluation.statistics import Moments, frechet_distance, psd_root


def frechet(samples: Features, reference: Features, *, interval: bool = False) -> Score:
    """Squared Fréchet distance between the Gaussians of two sets of features.

    Raises:
        UserError: another number of features than the reference's; no more vectors than features, whose covariance
            would be singular; too few samples for an interval.
    """
    gaussian, target = samples.gaussian, reference.gaussian
    if gaussian.dim != target.dim:
        raise UserError(
            f"the reference statistics have {target.dim} features, the samples {gaussian.dim}: choose `dim`"
        )
    for what, count in (("samples", samples.count), ("reference images", reference.count)):
        if count is not None:
            check_enough(count, what, target.dim)
    root = psd_root(target.covariance)
    value = frechet_distance(gaussian, target, root)
    if not interval:
        return Score(value)

    def without(g: int) -> float:
        left_out = Moments.of_batches(samples.chunks(group(g, len(samples))))
        return frechet_distance((samples.moments - left_out).gaussian(), target, root)

    return Score(value, None, *jackknife(without, value, len(samples), low=0))


def check_frechet(counts: Counts, *, interval: bool = False) -> None:
    """Raise `UserError` if there are too few samples or reference images for a covariance."""
    for what, count in (("samples", counts.samples), ("reference images", counts.reference)):
        if count is not None:
            check_enough(count, what, counts.length)


def check_enough(count: int, what: str, dim: int, instead: str = "a smaller `dim`, or `metrics=kid`") -> None:
    """Raise `UserError` if `count` vectors are too few for a covariance of `dim` features, which would be singular;
    `instead`: the advice in the message."""
    if count <= dim:
        raise UserError(
            f"{count:,} {what} are too few for a Fréchet distance in {dim:,} features: more than {dim:,} are needed, "
            f"or {instead}"
        )
