"""Choices by name, and the common error for an unknown name."""

import difflib
import os
from collections.abc import Callable, Iterable

from sddpm.errors import UserError


def check_choice(what: str, name: object, known: Iterable[object]) -> None:
    """Raise `UserError` unless `name` is among the `known` names of `what` ("solver", "resize filter", ...)."""
    names = list(known)
    if name not in names:
        raise UserError(f"unknown {what} {name!r}: choose one of {', '.join(map(str, names))}")


def nearest(
    name: str, known: Iterable[str], *, cutoff: float = 0.6, spelling: Callable[[str], str] = str
) -> str | None:
    """The known name that is most similar to `name`, both normalised by `spelling`; None if none is similar."""
    names = {spelling(key): key for key in known}
    found = difflib.get_close_matches(spelling(name), list(names), 1, cutoff)
    return names[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """The end of a message about an unknown name: the nearest known one as a question, or `otherwise`."""
    near = nearest(name, known)
    return otherwise if near is None else f"did you mean {near}?"


def choice_from_environment(variable: str, known: Iterable[str]) -> str:
    """The value of an environment variable, "auto" if unset. Raises `UserError` for a value that is not `known`."""
    names = list(known)
    choice = os.environ.get(variable, "auto")
    if choice not in names:
        raise UserError(f"{variable} must be one of {', '.join(names)}, got {choice!r}")
    return choice


def number_from_environment(variable: str, otherwise: int) -> int:
    """A number that torchrun sets in the environment. Raises `UserError` for an invalid value."""
    text = os.environ.get(variable, str(otherwise)).strip()
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise UserError(f"{variable} is set to {text!r}, which is not a number of processes: unset it, or use torchrun")
    return int(text)
