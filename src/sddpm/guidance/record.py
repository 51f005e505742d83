"""The result of guidance as data: as JSON with everything needed to repeat it, and the part saved with a model."""

import json
import math
from datetime import UTC, datetime
from typing import Any

from sddpm.evaluation.report import versions
from sddpm.guidance.bootstrap import Estimate
from sddpm.guidance.results import Comparison, GuidanceReport
from sddpm.pipelines.threshold_guidance import PlainThresholds, to_json


def kept_with_model(report: GuidanceReport) -> dict[str, Any]:
    """The entries to save with the chosen thresholds: which thresholds they replace, and why. (An x0_scale alone is
    saved as a number.)"""
    found = report.validation or next(each for each in report.trials if each.point == report.chosen)
    seeds = report.search.validation_seeds if report.validation is not None else report.search.search_seeds
    return {
        "v_threshold": _plain(report.space.thresholds(report.chosen)),
        "trained_v_threshold": _plain(report.space.thresholds(report.space.origin)),
        "metric": report.label,
        "value": found.value,
        "trained_value": found.trained_value,
        "difference": found.difference.value,
        "interval_95": list(found.difference.interval),
        "beats_trained": report.beats_trained,
        "protocol": {
            **report.facts["sampling"],
            **({"x0_scale": report.space.x0_scale(report.chosen)} if report.space.scaled else {}),
            "samples_per_seed_set": report.samples,
            "seed_sets": seeds,
            "reference": report.facts["reference"],
            "model_sha256": report.facts["sha256"],
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }


def as_json(report: GuidanceReport, command: str, stored: bool) -> str:
    """The whole search as JSON text.

    Args:
        report: the result.
        command: the command line that repeats it.
        stored: whether the choice was saved with the model.
    """
    search, space, proxy = report.search, report.space, report.proxy
    return json.dumps(
        {
            "command": command,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            **report.facts,
            "search": {
                "method": search.method,
                "axes": space.axes,
                "boundary": space.boundary if len(space.stages) > 1 else None,
                "groups": {name or "all": list(patterns) for name, patterns in space.groups.items()},
                "budget": search.budget,
                "first_seeds": search.search_seeds,
            },
            "trained": _plain(space.thresholds(space.origin)),
            "trials": [_comparison(report, each) for each in report.trials],
            "chosen": _plain(space.thresholds(report.chosen)),
            **({"chosen_x0_scale": space.x0_scale(report.chosen)} if space.scaled else {}),
            "validation": None
            if report.validation is None
            else {"first_seeds": search.validation_seeds, **_comparison(report, report.validation)},
            "beats_trained": report.beats_trained,
            "stored": stored,
            "proxy": None
            if proxy is None
            else {
                "images": proxy.images,
                "held_out": proxy.held_out,
                "rank_correlation": None if math.isnan(proxy.correlation) else proxy.correlation,
                "p_value": proxy.p_value,
                "trusted": proxy.trusted,
                "would_choose": _plain(space.thresholds(proxy.best)),
                "steps": proxy.tenths,
                "losses": [
                    {
                        "multiples": loss.point,
                        "loss": loss.value,
                        "difference": _estimate(loss.difference),
                        "by_tenth": loss.by_tenth,
                    }
                    for loss in proxy.losses
                ],
            },
            "versions": versions(),
        },
        indent=2,
    )


def _plain(thresholds: PlainThresholds | None) -> Any:
    return None if thresholds is None else to_json(thresholds)


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "standard_error": estimate.standard_error, "interval_95": estimate.interval}


def _comparison(report: GuidanceReport, each: Comparison) -> dict[str, Any]:
    return {
        "multiples": each.point,
        "v_threshold": _plain(report.space.thresholds(each.point)),
        **({"x0_scale": report.space.x0_scale(each.point)} if report.space.scaled else {}),
        "value": each.value,
        "difference": _estimate(each.difference),
        "seed_sets": [
            {"value": value, "difference": _estimate(difference)}
            for value, difference in zip(each.values, each.differences, strict=True)
        ],
    }
