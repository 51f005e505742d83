"""Names of folders made of names of other things, such as classes, which may come from a file of anybody's."""

import re
from collections.abc import Iterator, Sequence
from itertools import count

LONGEST = 100  # bytes
_UNSAFE = re.compile(r"[\x00-\x1f\x7f/\\:*?\"<>|\ud800-\udfff]")


def folder_names(names: Sequence[str]) -> list[str]:
    """A folder name for each, in order: no paths, none empty, none twice (also where case does not count).

    Most names stay as they are. What no file system takes becomes "-", and a name that is used already, or has nothing
    left, gets its number.
    """
    found: list[str] = []
    for i, name in enumerate(names):
        safe = _UNSAFE.sub("-", name).encode()[:LONGEST].decode(errors="ignore").strip().rstrip(".")
        if safe.startswith("."):  # hidden, or a parent folder
            safe = f"-{safe.lstrip('.')}"
        taken = {other.casefold() for other in found}
        if not safe.strip("- ") or safe.casefold() in taken:
            safe = next(c for c in _numbered(safe.strip("- "), i) if c.casefold() not in taken)
        found.append(safe)
    return found


def _numbered(name: str, number: int) -> Iterator[str]:
    return (f"{name or 'class'}-{i}" for i in count(number))
