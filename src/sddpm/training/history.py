"""How a model was made, stage by stage: history.yaml, next to the files of a run or model.

A run that starts from another model (`init_from`) keeps that model's stages, so that a model card can list them all.
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
    """One stage. what: "trained", "converted" or "averaged"; kind: of the resulting network; images: number of training
    images used, over all steps; seconds: of training; teacher: name of the distillation teacher, if any; parts: what
    was averaged, such as "0.6 a + 0.4 b"."""

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
    """The stage of a run with so many completed steps."""
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
    """The known stages of the model or run at `path`, in order; the last is the run's own.

    Raises:
        UserError: there is nothing at `path`, or its history is damaged.
    """
    config = config_path(path)
    folder = pipeline_folder(path) if config is None else config.parent
    stages = read_history(folder)
    if (folder / "metrics.jsonl").is_file() and (rows := read_metrics(folder)):
        stages.append(trained(load_config(folder / "config.yaml"), rows[-1]["step"], rows[-1].get("seconds", 0.0)))
    return stages


def config_path(path: str | PathLike[str]) -> Path | None:
    """The config of a run, or of a model saved with its training config; None if there is none. Raises `UserError` if
    there is neither run nor model."""
    config = Path(path, "config.yaml")
    if not config.is_file():
        config = pipeline_folder(path) / "config.yaml"
    return config if config.is_file() else None


def read_history(folder: Path) -> list[Stage]:
    """The stages in history.yaml; empty if there is no such file. Raises `UserError`."""
    path = folder / HISTORY
    if not path.is_file():
        return []
    try:
        return [Stage.model_validate(stage) for stage in read_yaml(path, "history")]
    except (UserError, ValidationError, TypeError) as error:
        raise UserError(
            f"{path} is damaged: copy it again, or delete it, which loses the record of how the model was made"
        ) from error


def write_history(folder: Path, stages: Sequence[Stage]) -> None:
    """Write history.yaml; without stages there is none."""
    if not stages:
        (folder / HISTORY).unlink(missing_ok=True)
    else:
        with atomic_path(folder / HISTORY) as temporary:
            rows = [stage.model_dump(exclude_defaults=True) for stage in stages]
            temporary.write_text(yaml.safe_dump(rows, sort_keys=False), encoding="utf-8")
