"""Names that are safe to write: of folders, from other names such as classes, which may come from an untrusted file."""

import re
from collections.abc import Iterator, Sequence
from itertools import count

LONGEST = 100  # bytes
_UNSAFE = re.compile(r"[\x00-\x1f\x7f/\\:*?\"<>|\ud800-\udfff]")


def folder_names(names: Sequence[str]) -> list[str]:
    """A folder name for each name, in order: no paths, no empty or repeated names (even if case is ignored).

    Most names do not change. Characters that some file system refuses become "-", and a name that is already used, or
    is empty afterwards, gets its number.
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


def is_utf8(text: str) -> bool:
    """Whether a text can be written as UTF-8. A path with other bytes cannot, nor be opened by every library."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _numbered(name: str, number: int) -> Iterator[str]:
    return (f"{name or 'class'}-{i}" for i in count(number))
