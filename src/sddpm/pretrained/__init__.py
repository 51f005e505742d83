"""Trained models that come with the package, by name. They are made by `sddpm release`; each has a README.md, its model
card.

Does not import torch, because the command line imports it for the names.
"""

from itertools import islice
from os import PathLike
from pathlib import Path

from sddpm.choices import nearest
from sddpm.errors import UserError

INDEX_NAME = "model_index.json"
_FOLDER = Path(__file__).parent / "models"


def pretrained_names() -> list[str]:
    """The models that can be loaded by name, without internet access."""
    return sorted(path.parent.name for path in _FOLDER.glob(f"*/{INDEX_NAME}"))


def summary(name: str) -> str:
    """A description of the model: the first sentence of its card."""
    lines = (_FOLDER / name / "README.md").read_text(encoding="utf-8").splitlines()
    return next((line for line in lines if line.startswith("A ")), "")


def find_pretrained(name: str | PathLike[str]) -> Path | None:
    """The folder of the model with this name, with hyphens or underscores (fashion-mnist, fashion_mnist); None if there
    is none. A user's folder of the same name has priority if it contains a model, but not if it contains something
    else, such as a data set."""
    own = Path(name)
    if (own / INDEX_NAME).is_file() or (own / "model").is_dir() or (own / "checkpoints").is_dir():
        return None
    spelled = str(name).replace("_", "-")
    return _FOLDER / spelled if spelled in pretrained_names() else None


def find_model(name: str | PathLike[str]) -> Path | None:
    """The local folder with model_index.json for `name`, which is a model of the package, a saved model, or a run (then
    its model/); None if there is none."""
    places = (find_pretrained(name), Path(name), Path(name, "model"))
    return next((place for place in places if place is not None and (place / INDEX_NAME).is_file()), None)


def no_model(name: str | PathLike[str], why: str = "there is no such folder") -> UserError:
    """The error for a name without a model, with the most similar names of models."""
    near = nearest(str(name), [*pretrained_names(), *_models_beside(Path(name))])
    hint = f"; did you mean {near}?" if near is not None else ""
    return UserError(
        f"no model at {name}: {why}, and the models that come with sddpm are {', '.join(pretrained_names())}{hint}"
    )


def _models_beside(path: Path) -> list[str]:
    try:
        beside = islice(path.parent.iterdir(), 1000)
        return [str(each) for each in beside if find_model(each) is not None]
    except OSError:  # no such folder, or no permission
        return []


def is_pretrained(folder: Path) -> bool:
    """Whether a folder is a model of the package, which commands must not change."""
    return folder.resolve().parent == _FOLDER.resolve()
