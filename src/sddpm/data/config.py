"""The data section of a run's config: the training images and their preparation."""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sddpm.data.registry import DATASETS
from sddpm.errors import UserError
from sddpm.opening.yaml_files import read_yaml


class DataConfig(BaseModel):
    """The training images and their size."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    dataset: str = Field(
        default="folder",
        description=f"{', '.join(DATASETS)} (any folder or zip), or a name added with register_dataset; signals "
        "(.npz or .npy) or gaussian-process",
    )
    path: str | None = Field(
        default=None, description="Folder or zip of the data; null: bundled, or in the download cache"
    )
    split: str = Field(default="train", description="Part of the data set to train on")
    image_size: int = Field(
        default=32, gt=0, description="Height and width of the network's images in pixels, or length of signals"
    )
    channels: int | None = Field(default=None, description="1 (grey) or 3 (colour); null: as in the data")
    crop: str | None = Field(default=None, description="Crop before resizing, by name; null: none")
    resize: str = Field(default="bilinear", description="Filter for resizing images to image_size")
    flip: bool = Field(default=False, description="Mirror each image left to right with probability 1/2")
    limit: int | None = Field(default=None, gt=0, description="Use only the first so many images; null: all")
    download: bool = Field(default=False, description="Download the data from its official source if it is missing")


def read_run_data(run: Path) -> DataConfig | None:
    """The data section of the config.yaml in the folder of a run; None if there is no such file.

    Raises:
        UserError: the file is not a config of a run.
    """
    file = run / "config.yaml"
    if not file.is_file():
        return None
    try:
        section = (read_yaml(file, "config") or {}).get("data") or {}
        if any(isinstance(value, list | dict) for value in section.values()):  # as anchors can hide large values
            raise TypeError("data must not have lists or sections as values")
        return DataConfig.model_validate_json(json.dumps(section), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(f"{file}: data.{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except (ValueError, AttributeError, TypeError) as error:  # ValueError: includes UserError
        raise UserError(f"{file} is not a config of a run: {str(error).splitlines()[0]}") from error
