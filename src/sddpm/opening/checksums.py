"""Hashes of weights, stored next to them in SHA256SUMS, a file that `sha256sum -c` can also read."""

import re
from pathlib import Path

from sddpm.errors import UserError
from sddpm.hashes import sha256_of
from sddpm.opening.files import MIB, read_text

CHECKSUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *]([^/\\\0]+)")


def write_checksums(folder: Path) -> None:
    """Write the hashes of all weights in `folder`."""
    lines = [f"{sha256_of(file)}  {file.name}\n" for file in sorted(folder.glob("*.safetensors"))]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def check_checksums(folder: Path) -> None:
    """Compare the weights in `folder` with their hashes. Folders without hashes (from earlier versions) are accepted.

    Raises:
        UserError: weights that differ from the saved ones; the message names the file.
    """
    path = folder / CHECKSUMS
    if not path.is_file():
        return
    kept: dict[str, str] = {}
    for number, line in enumerate(read_text(path, MIB, "list of hashes").splitlines(), 1):
        if (found := _LINE.fullmatch(line)) is None:
            raise UserError(f"{path} is damaged: line {number} is not a hash; copy the model again")
        kept[found[2]] = found[1]
    for file in sorted(folder.glob("*.safetensors")):
        if file.name not in kept:
            raise UserError(
                f"{path} has no hash of {file.name}: delete {CHECKSUMS} if you added these weights yourself"
            )
        if sha256_of(file) != kept[file.name]:
            raise UserError(
                f"{file} is damaged or was changed: its hash differs from that in {CHECKSUMS}; copy the model "
                f"again, or delete {CHECKSUMS} if you changed the weights yourself"
            )
