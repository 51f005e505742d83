"""Hashes of files, and names of stored results."""

import hashlib
from pathlib import Path

from sddpm.errors import UserError


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal. Raises `UserError` if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def short_hash(text: str) -> str:
    """The first 24 hexadecimal digits of the SHA-256 of a text: the name of a folder of stored results."""
    return hashlib.sha256(text.encode()).hexdigest()[:24]
