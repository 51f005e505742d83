"""Scores used by several benchmarks: FAD on Fashion-MNIST, KID on CIFAR-10, and paired distances."""

import argparse
from pathlib import Path
from typing import Any

import torch

from sddpm.evaluation import EvaluationSettings, SamplingSettings, evaluate, read_statistics
from sddpm.evaluation.features.extractor import fad_extractor
from sddpm.evaluation.metrics.distances import frechet_to
from sddpm.guidance.bootstrap import draw_weights, estimate


def fashion_fad(run: Path, args: argparse.Namespace, exit_tolerance: float | None = None) -> Any:
    """FAD of a run on Fashion-MNIST with its interval (`value`, `interval`), with FSDDIM's protocol, for `args.samples`
    samples with `args.solver_steps` steps of DDIM; `args.data` contains fad/, `args.out` gets intermediate results."""
    evaluation = evaluate(
        EvaluationSettings(
            source=str(run),
            protocol="fsddim",
            metrics=("fad",),
            samples=args.samples,
            channels=1,
            sampling=SamplingSettings(
                num_inference_steps=args.solver_steps, solver="ddim", exit_tolerance=exit_tolerance
            ),
            fad_weights=args.data / "fad" / "fashion_64.pth",
            fad_statistics=args.data / "fad" / "fashion_test_64.npz",
            interval=True,
            copies=False,
            work=args.out / "work",
        )
    )
    assert evaluation is not None
    return evaluation.measurements[0].score


def inception_in(data: Path) -> Path:
    """The 2015 Inception weights in a folder of data: inception*.pth there, or any .pth in its folder inception."""
    found = [*sorted(data.glob("inception*.pth")), *sorted(data.glob("inception/*.pth"))]
    if not found:
        raise SystemExit(f"{data} has no Inception weights: neither inception*.pth nor inception/*.pth")
    return found[0]


def colour_kid(run: Path, args: argparse.Namespace) -> Any:
    """KID of a run on CIFAR-10 with its interval, in `args.dim` features, of `args.samples` samples with
    `args.solver_steps` steps of DDIM against `args.references` training images; otherwise as `fashion_fad`."""
    evaluation = evaluate(
        EvaluationSettings(
            source=str(run),
            reference="cifar10",
            data=str(args.data / "cifar10"),
            metrics=("kid",),
            samples=args.samples,
            split="train",
            dim=args.dim,
            limit_reference=args.references,
            sampling=SamplingSettings(num_inference_steps=args.solver_steps, solver="ddim"),
            inception=inception_in(args.data),
            interval=True,
            copies=False,
            work=args.out / "work",
        )
    )
    assert evaluation is not None
    return evaluation.measurements[0].score


class PairedFad:
    """FAD of several sets of images with the same seeds, with bootstrap intervals of each and of their differences.

    The samples drawn in the bootstrap are the same for all sets, so that the interval of a difference is paired.
    """

    def __init__(self, weights: Path, statistics: Path, *, channels: int, samples: int, resamples: int):
        self._extractor = fad_extractor(weights, channels)
        reference = read_statistics(statistics).gaussians["pool"]
        self._distance, self._variance = frechet_to(reference), reference.covariance.trace().item()
        self._draws = draw_weights(samples, resamples, seed=0)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Of uint8 images [N, C, H, W]: float64 [N, D]."""
        return self._extractor(images)["fad"].double()

    def spread(self, features: torch.Tensor) -> float:
        """The total variance of features [N, D], relative to that of the reference's."""
        return features.var(0).sum().item() / self._variance

    def of(self, features: torch.Tensor, less: torch.Tensor | None = None) -> Any:
        """The distance of features, or its difference to that of others, as an `Estimate`."""
        value, resampled = self._distance(features), self._distance.weighted(features, self._draws)
        if less is not None:
            value, resampled = value - self._distance(less), resampled - self._distance.weighted(less, self._draws)
        return estimate(value, resampled)
