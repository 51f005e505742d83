"""The data section of a run's config: which images a model was trained on, and how they were prepared."""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sddpm.data.registry import DATASETS
from sddpm.errors import UserError
from sddpm.opening.yaml_files import read_yaml


class DataConfig(BaseModel):
    """Which images are learned, and at what size."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    dataset: str = Field(
        default="folder",
        description=f"{', '.join(DATASETS)} (any folder or zip), or what register_dataset was given; signals (.npz or"
        " .npy) or gaussian-process",
    )
    path: str | None = Field(
        default=None, description="Folder or zip of the data; null: bundled, or in the download cache"
    )
    split: str = Field(default="train", description="Part of the data set to train on")
    image_size: int = Field(
        default=32, gt=0, description="Height and width in pixels that the network sees, or length of signals"
    )
    channels: int | None = Field(default=None, description="1 (grey) or 3 (colour); null: as the data")
    crop: str | None = Field(default=None, description="Crop before resizing, by name; null: none")
    resize: str = Field(default="bilinear", description="Filter that brings images to image_size")
    flip: bool = Field(default=False, description="Mirror each image left to right with probability 1/2")
    limit: int | None = Field(default=None, gt=0, description="Use the first so many images only; null: all")
    download: bool = Field(default=False, description="Fetch the data from its official place when it is missing")


def read_run_data(run: Path) -> DataConfig | None:
    """The data section of the config.yaml in the folder of a run; None if there is no such file.

    Raises:
        UserError: a file that is no config of a run.
    """
    file = run / "config.yaml"
    if not file.is_file():
        return None
    try:
        section = (read_yaml(file, "config") or {}).get("data") or {}
        if any(isinstance(value, list | dict) for value in section.values()):  # as anchors write large things shortly
            raise TypeError("data has values that are lists or sections")
        return DataConfig.model_validate_json(json.dumps(section), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(f"{file}: data.{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except (ValueError, AttributeError, TypeError) as error:  # ValueError: a UserError too
        raise UserError(f"{file} is no config of a run: {str(error).splitlines()[0]}") from error
