"""The table of benchmarks/recipe.py: one line per arm, with intervals over samples and over trainings."""

import math
import statistics
from pathlib import Path

from scipy.special import stdtrit

from sddpm.files import atomic_path

UNITS = {
    "fad": ("FAD", 1),
    "kid": ("KID-{dim} x 1000", 1000),
}  # a metric's name in the table, and its factor there


def summarise(rows: list[dict], out: Path, metric: str = "fad", against: str = "as it is") -> None:
    """Write OUT/recipe.md: one line per arm, the best first: images of each stage; for each seed the error on test
    images and the metric with the interval of its samples; and the ratio to the arm `against`, with the interval over
    trainings."""
    title, unit = UNITS[metric]
    arms: dict[str, dict[int, dict]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        arms.setdefault(row["arm"], {})[row["seed"]] = row
    # A kernel distance can be 0 or below, which has no logarithm.
    positive = {name: {s: row[metric] for s, row in found.items() if row[metric] > 0} for name, found in arms.items()}
    shares = shares_of(against, {name: found for name, found in positive.items() if found})
    title = title.format(dim=rows[0].get("dim", 768))
    lines = [f"| arm | images | error | {title}, 95 % interval | of `{against}` |", "|---|---|---|---|---|"]
    for name, found in sorted(arms.items(), key=lambda item: statistics.mean(row[metric] for row in item[1].values())):
        seeds = list(found.values())
        images = " + ".join(f"{stage['images']:,}" for stage in seeds[0]["stages"])
        errors = "; ".join(f"{row['error']:.4f}" for row in seeds if row["error"] is not None)
        scores = "; ".join(
            "{:.1f} [{:.1f}, {:.1f}]".format(*(unit * x for x in (row[metric], *row["interval_95"]))) for row in seeds
        )
        lines.append(f"| {name} | {images} | {errors} | {scores} | {' '.join(shares.get(name, []))} |")
    with atomic_path(out / "recipe.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n")


def shares_of(base: str, scores: dict[str, dict[int, float]]) -> dict[str, list[str]]:
    """For each arm, the geometric mean of the ratios of its scores to the base's with the same seed, and, if there are
    at least two seeds, its 95 % interval."""
    logs = {name: {seed: math.log(value) for seed, value in found.items()} for name, found in scores.items()}
    spread, freedom = spread_of_trainings(logs)
    shares = {}
    for name, found in logs.items():
        differences = [found[seed] - value for seed, value in logs.get(base, {}).items() if seed in found]
        if not differences:
            continue
        middle = statistics.mean(differences)
        shares[name] = [f"{math.exp(middle):.2f}"]
        if freedom and name != base:  # two trainings differ, the arm's and the base's
            width = stdtrit(freedom, 0.975) * spread * math.sqrt(2 / len(differences))
            shares[name].append(f"[{math.exp(middle - width):.2f}, {math.exp(middle + width):.2f}]")
    return shares


def spread_of_trainings(values: dict[str, dict[int, float]]) -> tuple[float, int]:
    """Standard deviation of one training's value beyond the effects of its arm and seed (two-way analysis of variance),
    and its degrees of freedom. Two trainings of a single arm are not enough for this, two of every arm are."""
    seeds = {seed for found in values.values() for seed in found}
    rows = [[found[seed] for seed in sorted(seeds)] for found in values.values() if len(found) == len(seeds)]
    freedom = (len(rows) - 1) * (len(seeds) - 1)
    if freedom <= 0:
        return 0.0, 0
    of_arm = [statistics.mean(row) for row in rows]
    of_seed = [statistics.mean(column) for column in zip(*rows, strict=True)]
    mean = statistics.mean(of_arm)
    squares = sum(
        (value - of_arm[i] - of_seed[k] + mean) ** 2 for i, row in enumerate(rows) for k, value in enumerate(row)
    )
    return math.sqrt(squares / freedom), freedom
