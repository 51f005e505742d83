"""How a model came to be, stage by stage: history.yaml, beside a run's or a model's files.

A run that starts from another model (`init_from`) keeps the stages of that one, so that a card can tell them all.
"""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from sddpm.errors import UserError
from sddpm.files import atomic_path
from sddpm.opening.yaml_files import read_yaml
from sddpm.pipelines.resolving import pipeline_folder
from sddpm.training.config import Config
from sddpm.training.config_files import load_config
from sddpm.training.metrics import read_metrics

HISTORY = "history.yaml"


class Stage(BaseModel):
    """One of them. what: "trained", "converted" or "averaged"; kind: of the network that came out of it; images: seen,
    in all steps; seconds: of training; teacher: name of the model that was learned from, if any; parts: what was
    averaged, such as "0.6 a + 0.4 b"."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    what: str
    kind: str
    T: int
    dataset: str | None = None
    steps: int = 0
    images: int = 0
    seconds: float = 0.0
    teacher: str | None = None
    parts: str | None = None


def trained(config: Config, steps: int, seconds: float) -> Stage:
    """The stage of a run of which so many steps are done."""
    return Stage(
        what="trained",
        kind=config.model.kind,
        T=config.model.T,
        dataset=config.data.dataset,
        steps=steps,
        images=steps * config.train.batch_size,
        seconds=round(seconds, 1),
        teacher=None if config.train.teacher is None else Path(config.train.teacher).name,
    )


def stages_of(path: str | PathLike[str]) -> list[Stage]:
    """The stages that made the model or run at `path`, as far as it is known: the run's own is the last.

    Raises:
        UserError: nothing at `path`, or a history that is damaged.
    """
    config = config_path(path)
    folder = pipeline_folder(path) if config is None else config.parent
    stages = read_history(folder)
    if (folder / "metrics.jsonl").is_file() and (rows := read_metrics(folder)):
        stages.append(trained(load_config(folder / "config.yaml"), rows[-1]["step"], rows[-1].get("seconds", 0.0)))
    return stages


def config_path(path: str | PathLike[str]) -> Path | None:
    """Of a run, or of a model that keeps the config it was trained by; None without. Raises `UserError` if there is
    neither run nor model."""
    config = Path(path, "config.yaml")
    if not config.is_file():
        config = pipeline_folder(path) / "config.yaml"
    return config if config.is_file() else None


def read_history(folder: Path) -> list[Stage]:
    """What history.yaml says; nothing if there is none. Raises `UserError`."""
    path = folder / HISTORY
    if not path.is_file():
        return []
    try:
        return [Stage.model_validate(stage) for stage in read_yaml(path, "history")]
    except (UserError, ValidationError, TypeError) as error:
        raise UserError(f"{path} is damaged: copy it again, or delete it and lose what it tells of the past") from error


def write_history(folder: Path, stages: Sequence[Stage]) -> None:
    """Write history.yaml, if there is anything to tell."""
    if stages:
        with atomic_path(folder / HISTORY) as temporary:
            rows = [stage.model_dump(exclude_defaults=True) for stage in stages]
            temporary.write_text(yaml.safe_dump(rows, sort_keys=False), encoding="utf-8")
