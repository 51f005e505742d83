"""Parses seeds and thresholds as users write them. Does not import torch, because the command line parses them
first."""

from collections.abc import Sequence
from typing import Any

from sddpm.errors import UserError


def listed_seeds(text: str, most: int) -> list[int]:
    """The seeds of "0-63,100". No seed may be repeated, since images are named by it.

    Raises:
        UserError: an invalid list, more than `most` seeds, or a repeated seed.
    """
    chosen: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and _less(last, first)):
            raise UserError(f"`seeds` {text!r}: {part.strip()!r} is neither a seed nor a range such as 0-63")
        end = last or first
        if max(len(first), len(end)) > 20 or int(end) >= 2**63:  # Python reads no number of thousands of digits
            raise UserError(f"`seeds` must be numbers below 2^63, not {part.strip()[:30]}")
        if len(chosen) + int(end) - int(first) + 1 > most:
            raise UserError(f"`seeds` {text!r} names more than {most:,} seeds: sample them in parts")
        chosen.extend(range(int(first), int(end) + 1))
    if len(set(chosen)) < len(chosen):
        raise UserError(f"`seeds` {text!r} names a seed twice")
    return chosen


def listed_thresholds(values: Sequence[str]) -> Any:
    """Thresholds, as in `sddpm.models.thresholds`, from "0.999", "0.999x", "LAYERS=0.999" and "trained", where later
    ones win; {} for the trained ones; None for an empty list.

    Raises:
        UserError: not a number.
    """
    if not values:
        return None
    thresholds: dict[str, float | str] = {}
    for value in values:
        if value == "trained":
            thresholds.clear()
            continue
        pattern, equals, number = value.rpartition("=")
        try:
            threshold = number if number.endswith("x") else float(number)
        except ValueError as error:
            raise UserError(
                f"`v_threshold` {value!r}: a number such as 0.999, a multiple such as 0.999x, LAYERS=0.999 or trained"
                " is needed"
            ) from error
        pattern = pattern if equals else "*"
        thresholds.pop(pattern, None)  # so that a repeated pattern moves to the end
        thresholds[pattern] = threshold
    return thresholds["*"] if list(thresholds) == ["*"] else thresholds


def _less(a: str, b: str) -> bool:
    """Whether one whole number is less than another, for any number of digits."""
    a, b = a.lstrip("0"), b.lstrip("0")
    return (len(a), a) < (len(b), b)
