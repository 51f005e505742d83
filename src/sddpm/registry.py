"""Registries of named parts that users can extend. A registry is a dictionary {name: part}; the functions are
shared."""

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from sddpm.errors import UserError

Part = TypeVar("Part")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.+-]*")


def register(parts: dict[str, Part], kind: str, name: str, part: Part) -> None:
    """Add a part under a new name.

    Args:
        parts: the registry.
        kind: the kind of its parts, in one word, for messages.
        name: a letter, then letters, digits and any of _.+-
        part: the part to add.

    Raises:
        UserError: an invalid name, or one that is taken.
    """
    check_name(kind, name)
    if name in parts:
        raise UserError(f"the {kind} {name!r} already exists: register yours under another name")
    parts[name] = part


def check_name(kind: str, name: object) -> None:
    """Raise `UserError` unless `name` is a letter, then letters, digits and any of _.+-"""
    if not isinstance(name, str) or NAME.fullmatch(name) is None:
        raise UserError(f"the name of a {kind} must be a letter, then letters, digits or any of _.+-, got {name!r}")


def registered(parts: Mapping[str, Part], kind: str, name: str) -> Part:
    """The part of that name. Raises `UserError` if there is none."""
    if name not in parts:
        choices = ", ".join(parts)
        raise UserError(f"unknown {kind} {name!r}: choose one of {choices}, or {_call(kind, name)} first")
    return parts[name]


def missing(parts: Iterable[str], kind: str, name: object) -> str:
    """The message for a saved model or config that needs an unregistered name."""
    return f"needs {kind} {name!r}, which is not registered: {_call(kind, name)} first, or choose {one_of(parts)}"


def _call(kind: str, name: object) -> str:
    return f"call sddpm.register_{kind}({name!r}, ...)"


def one_of(names: Iterable[str]) -> str:
    """'a', 'b' or 'c'."""
    *others, last = map(repr, names)
    return f"{', '.join(others)} or {last}" if others else last
