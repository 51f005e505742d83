"""Seeds and thresholds as people write them. Imports no torch: the command line reads them before it does."""

from collections.abc import Sequence
from typing import Any

from sddpm.errors import UserError


def listed_seeds(text: str, most: int) -> list[int]:
    """The seeds of "0-63,100", each once, since images are named by it.

    Raises:
        UserError: no such list, more than `most` seeds, or one that is named twice.
    """
    chosen: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and _less(last, first)):
            raise UserError(f"`seeds` {text!r}: {part.strip()!r} is neither a seed nor a range such as 0-63")
        if len(first) > 20 or len(last) > 20:
            raise UserError(f"`seeds` are numbers below 2^63, not {part.strip()[:30]}...")
        named = range(int(first), int(last or first) + 1)
        if len(chosen) + len(named) > most:
            raise UserError(f"`seeds` {text!r} names more than {most:,} seeds: sample them in parts")
        chosen.extend(named)
    if len(set(chosen)) < len(chosen):
        raise UserError(f"`seeds` {text!r} names a seed twice")
    return chosen


def listed_thresholds(values: Sequence[str]) -> Any:
    """Thresholds, as of `sddpm.models.thresholds`, from "0.999", "0.999x" and "LAYERS=0.999"; "trained" alone for those
    of the training, which is {}; None from nothing.

    Raises:
        UserError: no number.
    """
    if list(values) == ["trained"]:
        return {}
    thresholds: dict[str, float | str] = {}
    for value in values:
        pattern, equals, number = value.rpartition("=")
        try:
            threshold = number if number.endswith("x") else float(number)
        except ValueError as error:
            raise UserError(
                f"`v_threshold` {value!r}: a number such as 0.999, a multiple such as 0.999x, LAYERS=0.999 or trained"
                " is needed"
            ) from error
        pattern = pattern if equals else "*"
        thresholds.pop(pattern, None)  # so that the later one comes later
        thresholds[pattern] = threshold
    if not thresholds:
        return None
    return thresholds["*"] if list(thresholds) == ["*"] else thresholds


def _less(a: str, b: str) -> bool:
    """Whether one whole number is below another, however many digits they have."""
    a, b = a.lstrip("0"), b.lstrip("0")
    return (len(a), a) < (len(b), b)
