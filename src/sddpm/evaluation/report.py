"""An evaluation as text (one line per metric) and as JSON with everything needed to repeat it."""

import importlib.metadata
import json
import platform
from datetime import UTC, datetime
from typing import Any

from sddpm.evaluation.run import Evaluation, Measurement

PACKAGES = ("sddpm", "torch", "diffusers", "numpy", "pillow")


def line(measurement: Measurement, protocol: str) -> str:
    """The number, its uncertainty, and its differences from the protocol."""
    score = measurement.score
    words = [f"{measurement.label:<14} {score.value:.6g}"]
    if score.std is not None:
        words.append(f"std {score.std:.3g}")
    if score.standard_error is not None:
        words.append(f"standard error {score.standard_error:.3g}")
    if score.interval is not None:
        words.append("95 % interval {:.6g} to {:.6g}".format(*score.interval))
    if score.details:
        words.append(", ".join(f"{key.replace('_', ' ')} {value}" for key, value in score.details.items()))
    off = measurement.departures
    return "  ".join(words) + f"  [{f'not protocol {protocol}: ' + '; '.join(off) if off else f'protocol {protocol}'}]"


def copies_line(copies: dict[str, Any]) -> str:
    """The share of near copies of training images, or the reason why they were not searched."""
    if "why" in copies:
        return f"{'near copies':<14} not searched: {copies['why']}"
    return (
        f"{'near copies':<14} {copies['share']:.2%}  {copies['count']:,} of {copies['checked']:,} samples, "
        f"among {copies['training_images']:,} images"
    )


def as_json(evaluation: Evaluation, command: str) -> str:
    """The whole evaluation as JSON text.

    Args:
        evaluation: the result.
        command: the command line that repeats it.
    """
    plan = evaluation.plan
    return json.dumps(
        {
            "command": command,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "protocol": {
                "name": plan.protocol.name,
                "split": plan.split,
                "preprocessing": plan.preprocessing,
                "dim": plan.dim,
            },
            "metrics": {each.metric.name: _entry(each) for each in evaluation.measurements},
            **evaluation.facts,
            "versions": versions(),
        },
        indent=2,
    )


def _entry(measurement: Measurement) -> dict[str, Any]:
    score = measurement.score
    return {
        "label": measurement.label,
        "value": score.value,
        "std": score.std,
        "standard_error": score.standard_error,
        "interval_95": score.interval,
        **score.details,
        "lower_is_better": measurement.metric.lower_is_better,
        "departures": measurement.departures,
    }


def versions() -> dict[str, str | None]:
    """Versions of the software that a number can depend on."""
    return {name: _version(name) for name in PACKAGES} | {"python": platform.python_version()}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
