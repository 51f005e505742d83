"""Evaluation protocols by name, and how a measurement differs from them."""

from dataclasses import dataclass

from sddpm.choices import check_choice
from sddpm.evaluation.metrics.registry import Metric


@dataclass(frozen=True)
class Protocol:
    """The conditions of published measurements.

    samples: number of samples. split: split of the reference data set. preprocessing: of Inception's input.
    dim: length of the Inception features. metrics: the published metrics. splits: of the Inception score.
    neighbours: vectors of samples and of the reference for precision and recall.
    """

    name: str
    samples: int
    split: str
    preprocessing: str
    dim: int
    metrics: tuple[str, ...]
    help: str
    splits: int = 10
    neighbours: int = 10_000


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "sddpm", 50_000, "train", "pytorch-fid", 2048, ("fid", "is"), "SDDPM (WACV 2024) and most of the field"
        ),
        Protocol("fsddim", 10_000, "test", "clean-fid", 2048, ("fid", "fad"), "FSDDIM (arXiv 2312.01742)"),
    )
}


OWN_STATISTICS = "own reference statistics instead of the published"


@dataclass(frozen=True)
class Conditions:
    """The conditions of a measurement: the fields of `Protocol`, and

    split: None if unknown (a statistics file, a folder).
    reference_limit: only the first so many reference images; None for all.
    published_inception: whether the Inception weights are the published file.
    published_fad: whether FAD was measured against a statistics file of other software, taken for the published one.
    other_weights: whether the reference's statistics were made with other weights of the feature network.
    skipped: number of damaged images that were left out.
    splits: of the Inception score.
    neighbours: vectors of the samples and of the reference, for precision and recall.
    crops, sizes: of the reference and of the training images, or samples, if they differ.
    """

    samples: int
    split: str | None
    preprocessing: str
    dim: int
    reference_limit: int | None = None
    published_inception: bool = True
    published_fad: bool = True
    other_weights: bool = False
    skipped: int = 0
    splits: int = 10
    neighbours: tuple[int, int] | None = None
    crops: tuple[str, str] | None = None
    sizes: tuple[int, int] | None = None


def find_protocol(name: str) -> Protocol:
    """The protocol named `name`. Raises `UserError` if there is none."""
    check_choice("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def departures(protocol: Protocol, metric: Metric, made: Conditions) -> list[str]:
    """The differences of a metric's conditions from the protocol, in words to print after the number; empty if none."""
    inception = metric.network == "inception"
    compared = metric.against != "nothing"
    few = made.neighbours is not None and min(made.neighbours) < protocol.neighbours
    checks = [
        (
            made.neighbours is None and made.samples != protocol.samples,
            f"{made.samples:,} samples instead of {protocol.samples:,}",
        ),
        (
            compared and made.split is not None and made.split != protocol.split,
            f"{made.split} split instead of {protocol.split}",
        ),
        (
            compared and made.reference_limit is not None,
            f"{made.reference_limit or 0:,} reference images instead of all",
        ),
        (metric.features == "pool" and made.dim != protocol.dim, f"{made.dim} features instead of {protocol.dim}"),
        (
            inception and made.preprocessing != protocol.preprocessing,
            f"{made.preprocessing} preprocessing instead of {protocol.preprocessing}",
        ),
        (inception and not made.published_inception, "Inception weights from another file than the published"),
        (metric.network == "fad" and not made.published_fad, OWN_STATISTICS),
        (compared and made.other_weights, "reference statistics made with other weights"),
        (
            "splits" in metric.options and made.splits != protocol.splits,
            f"{made.splits} splits instead of {protocol.splits}",
        ),
        (
            few,
            "{:,} samples and {:,} reference images instead of {:,} and {:,}".format(
                *(made.neighbours or (0, 0)), protocol.neighbours, protocol.neighbours
            ),
        ),
        (
            compared and made.crops is not None,
            "reference cropped by {}, training images by {}".format(*(made.crops or ("", ""))),
        ),
        (
            compared and made.sizes is not None,
            "reference images of {0}x{0} pixels, samples of {1}x{1}".format(*(made.sizes or (0, 0))),
        ),
        (made.skipped > 0, f"{made.skipped:,} damaged image{'s' if made.skipped > 1 else ''} left out"),
    ]
    return [words for true, words in checks if true]
