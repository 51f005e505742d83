"""The result of a sampler search: a table, verdicts, JSON, and the entry saved with the model."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sddpm.evaluation.report import versions
from sddpm.guidance.bootstrap import Estimate
from sddpm.guidance.results import Comparison
from sddpm.guidance.sampler_run import SamplerReport
from sddpm.pipelines import Sampler


def sampler_table(report: SamplerReport) -> str:
    """One line for each sampler with a measured metric, best first."""
    lines = [f"  {report.label:>12}  {'difference':>12}  {'95 % interval':>24}  sampler"]
    for each in sorted(report.trials, key=lambda each: each.value):
        own = each.point == report.space.origin
        difference = "own" if own else f"{each.difference.value:+.4g}"
        interval = "" if own else each.difference.interval_in_words
        mark = "*" if each.point == report.chosen else " "
        words = report.space.describe(each.point)
        lines.append(f"{mark} {each.value:12.6g}  {difference:>12}  {interval:>24}  {words}")
    return "\n".join(lines)


def sampler_verdict(report: SamplerReport) -> list[str]:
    """The choice, whether it beats the model's own solver with the same number of evaluations, and a comparison with
    the model's current sampler."""
    space, sets = report.space, len(report.facts["fresh_first_seeds"])
    lines = [f"chosen: {space.describe(report.chosen)}, at most {report.evaluations} evaluations"]
    if report.validation is None:
        lines.append(f"verdict: none tried was better than the model's own, {space.describe(space.origin)}")
    else:
        found, own = report.validation, space.describe(space.origin)
        lines.append(
            f"on fresh seeds ({sets} x {report.samples:,} samples): {report.label} {found.value:.6g}, "
            f"{found.trained_value:.6g} of {own}: difference {found.difference.value:+.4g}, 95 % interval "
            f"{found.difference.interval_in_words}"
        )
        word = "beats" if found.difference.below_zero else "is worse than" if found.difference.above_zero else ""
        lines.append(f"verdict: it {word or 'is not better than'} {own} beyond noise")
    now = report.against_now
    lines.append(
        f"as it samples now ({space.describe(space.present)}): {report.label} {now.trained_value:.6g} on the same "
        f"seeds, difference {now.difference.value:+.4g}, 95 % interval {now.difference.interval_in_words}"
    )
    return lines


def kept_sampler(report: SamplerReport) -> Sampler:
    """The choice and the facts to save with it, for `store_sampler`."""
    found = report.against_now if report.validation is None else report.validation
    about = {
        "metric": report.label,
        "value": found.value,
        "samples": report.samples * len(report.facts["fresh_first_seeds"]),
        "evaluations": report.evaluations,
        "against_own": None if report.validation is None else _estimate(report.validation.difference),
        "against_before": _estimate(report.against_now.difference),
        "model_sha256": report.facts["sha256"],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return replace(report.sampler, about=about)


def sampler_json(report: SamplerReport, command: str, stored: str | None) -> str:
    """The whole result; `command` repeats it; `stored` is its name in the model, if saved."""
    return json.dumps(
        {
            "command": command,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            **report.facts,
            "near": [
                {"solver": each.solver, "timesteps": each.timesteps, "distance": each.distance} for each in report.near
            ],
            "trials": [_comparison(report, each) for each in report.trials],
            "chosen": report.sampler.to_dict(),
            "validation": None if report.validation is None else _comparison(report, report.validation),
            "now": report.space.sampler(report.space.present).to_dict(),
            "against_now": _comparison(report, report.against_now),
            "beats_own": report.beats_own,
            "stored": stored,
            "versions": versions(),
        },
        indent=2,
    )


def _comparison(report: SamplerReport, each: Comparison) -> dict[str, Any]:
    return {
        "sampler": report.space.sampler(each.point).to_dict(),
        "value": each.value,
        "difference": _estimate(each.difference),
    }


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "interval_95": list(estimate.interval)}
