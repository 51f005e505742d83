"""Trained models that come with the package, known by name. They are made by `sddpm release`; each has a README.md, its
model card.

Imports no torch: the command line asks it for names.
"""

from os import PathLike
from pathlib import Path

_FOLDER = Path(__file__).parent / "models"


def pretrained_names() -> list[str]:
    """The models that can be loaded by name, without a network."""
    return sorted(path.parent.name for path in _FOLDER.glob("*/model_index.json"))


def summary(name: str) -> str:
    """What the model of that name is: the sentence that its card begins with."""
    lines = (_FOLDER / name / "README.md").read_text(encoding="utf-8").splitlines()
    return next((line for line in lines if line.startswith("A ")), "")


def find_pretrained(name: str | PathLike[str]) -> Path | None:
    """The folder of the model called `name`; None if there is none. A folder of one's own with that name that holds a
    model comes first; one that holds something else, such as a data set, does not count."""
    own = Path(name)
    if (own / "model_index.json").is_file() or (own / "model").is_dir() or (own / "checkpoints").is_dir():
        return None
    return _FOLDER / str(name) if str(name) in pretrained_names() else None


def is_pretrained(folder: Path) -> bool:
    """Whether a folder is one of those that come with the package, which commands do not write to."""
    return folder.resolve().parent == _FOLDER.resolve()
