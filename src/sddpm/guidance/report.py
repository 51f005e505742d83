"""The result of guidance as text and as a figure: a table, verdicts, the curve."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sddpm.guidance.results import GuidanceReport
from sddpm.guidance.space import Point


def table(report: GuidanceReport) -> str:
    """One line for each choice, in order; differences are to the trained model, on the same seeds."""
    losses = {loss.point: loss for loss in report.proxy.losses} if report.proxy is not None else {}
    sets = len(report.search.search_seeds)
    header = [*report.space.axes, report.label, "difference", "95 % interval"]
    header += [f"set {i + 1}" for i in range(sets)] if sets > 1 else []
    header += ["loss", "difference %"] if losses else []
    rows = [header]
    for each in sorted(report.trials, key=lambda each: each.point):
        trained = each.point == report.space.origin
        row = [f"{x:g}" for x in report.space.values(each.point)] + [f"{each.value:.6g}"]
        row += ["trained", ""] if trained else [f"{each.difference.value:+.4g}", each.difference.interval_in_words]
        row += ["" if trained else f"{one.value:+.4g}" for one in each.differences] if sets > 1 else []
        if losses:
            loss = losses[each.point]
            before = loss.value - loss.difference.value
            row += [f"{loss.value:.5g}", "" if trained else f"{100 * loss.difference.value / before:+.3g}"]
        rows.append([*row[:-1], row[-1] + " *"] if each.point == report.chosen else row)
    widths = [max(len(row[i].removesuffix(" *")) for row in rows) for i in range(len(header))]
    lines = []
    for row in rows:
        marked = row[-1].endswith(" *")
        cells = [cell.removesuffix(" *").rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append(("* " if marked else "  ") + "  ".join(cells).rstrip())
    return "\n".join(lines)


def verdict(report: GuidanceReport) -> list[str]:
    """The choice, whether it is significantly better, and whether the loss is a usable proxy."""
    name, start = report.space.describe, report.space.start
    if report.validation is None:
        return [f"chosen: {start}{_in_numbers(report)}; none tried was better", *_proxy(report)]
    found = report.validation
    sets, count = len(report.search.validation_seeds), report.samples
    lines = [
        f"chosen: {name(report.chosen)}. On fresh seeds ({sets} x {count:,} samples): {report.label} "
        f"{found.value:.6g}, {found.trained_value:.6g} as trained, difference {found.difference.value:+.4g}, "
        f"95 % interval {found.difference.interval_in_words}"
        + (f", by seed set {', '.join(f'{one.value:+.4g}' for one in found.differences)}" if sets > 1 else "")
    ]
    if found.difference.below_zero:
        lines.append(f"verdict: {name(report.chosen)} beats {start} beyond noise")
    elif found.difference.above_zero:
        lines.append(f"verdict: {name(report.chosen)} is worse than {start} on fresh seeds, beyond noise")
    else:
        lines.append(f"verdict: {name(report.chosen)} is not better than {start} beyond noise")
    return [*lines, *_proxy(report)]


def in_words(guidance: Mapping[str, Any]) -> str:
    """The result of `kept_with_model` in one line; missing entries are left out."""
    plain = guidance["v_threshold"]
    if isinstance(plain, Mapping):
        stages = [f"{key} {value}" for key, value in plain.items() if key != "boundary"]
        words = ", ".join(stages).translate(str.maketrans("", "", "{}'"))
        words += f" (early: t >= {plain['boundary']})" if "boundary" in plain else ""
    else:
        words = f"threshold {plain if isinstance(plain, str) else f'{plain:g}'}"
    if not {"metric", "value", "trained_value", "interval_95", "beats_trained"} <= set(guidance):
        return words
    low, high = guidance["interval_95"]
    return (
        f"{words}: {guidance['metric']} {guidance['value']:.4g} instead of {guidance['trained_value']:.4g}, 95 % of "
        f"the difference {low:+.3g} to {high:+.3g}{'' if guidance['beats_trained'] else ', not better beyond noise'}"
    )


def _in_numbers(report: GuidanceReport) -> str:
    return f" ({report.space.describe(report.space.origin)})" if report.space.groups else ""


def _proxy(report: GuidanceReport) -> list[str]:
    proxy = report.proxy
    if report.space.scaled:
        return []
    if proxy is None:
        return ["proxy: the noise-prediction loss was not measured (no images: give `reference` or `held_out`)"]
    seen = "" if proxy.held_out else ", not known to be held out"
    if math.isnan(proxy.correlation):
        return [f"proxy: too few different values to rank the noise-prediction loss ({proxy.images}{seen})"]
    if proxy.trusted:
        advice = "it ranks these thresholds almost as the metric does"
    elif proxy.correlation <= -0.7 and proxy.p_value < 0.05:
        advice = "it ranks these thresholds in the opposite order: do not use it to choose"
    else:
        advice = "it does not show which thresholds sample best: do not use it to choose"
    return [
        f"proxy: noise-prediction loss ({proxy.images}{seen}): rank correlation with {report.label} "
        f"{proxy.correlation:+.2f}, p = {proxy.p_value:.2g}; {advice}; it would have chosen "
        f"{report.space.describe(proxy.best)} ({report.label} {_value(report, proxy.best):.6g})"
    ]


def _value(report: GuidanceReport, point: Point) -> float:
    return next(each.value for each in report.trials if each.point == point)


def draw(report: GuidanceReport) -> Any:
    """The metric over the choices, and the loss if it was measured, as a matplotlib figure; save it with
    `figure.savefig(path)`."""
    from sddpm.figures.thresholds import Curve, threshold_curves, threshold_trials

    one = len(report.space.axes) == 1
    trials = sorted(report.trials, key=lambda each: each.point) if one else report.trials
    points = [each.point for each in trials]
    intervals = [each.difference.interval for each in trials]
    curves = [Curve(report.label, [each.value for each in trials], intervals)]
    if report.proxy is not None:
        losses = {loss.point: loss for loss in report.proxy.losses}
        found = [losses[point] for point in points]
        intervals = [loss.difference.interval for loss in found]
        curves.append(Curve("noise-prediction loss", [loss.value for loss in found], intervals))
    places = {"trained": points.index(report.space.origin), "chosen": points.index(report.chosen)}
    sampling = report.facts["sampling"]
    title = (
        f"{Path(report.facts['model']).name}: {report.label}, {len(report.search.search_seeds)} x {report.samples:,} "
        f"samples, {sampling['solver']} with {sampling['steps']} steps"
    )
    if one:
        label = "firing threshold" if report.space.groups else "x0_scale"
        values = [report.space.values(point)[0] for point in points]
        return threshold_curves(values, curves, title=title, label=label, **places)
    return threshold_trials([report.space.describe(point) for point in points], curves, title=title, **places)
