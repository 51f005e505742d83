"""Resolves the name of a model: one that comes with the package, a saved model or run, or user/model on the hub."""

from os import PathLike
from pathlib import Path

from sddpm.errors import UserError
from sddpm.opening.json_files import read_json
from sddpm.pipelines.hub import fetch_model, is_hub_id
from sddpm.pretrained import INDEX_NAME, find_model, is_pretrained, no_model


def pipeline_folder(path: str | PathLike[str]) -> Path:
    """The folder with model_index.json: `path`; its model/ if it is a run folder; that of the model of this name that
    comes with the package; or that of user/model, downloaded from the hub. Raises `UserError` if `path` is none of
    these."""
    if (found := find_model(path)) is not None:
        return found
    folder = Path(path)
    if is_hub_id(path):
        try:
            folder = fetch_model(str(path))
        except UserError as error:
            raise no_model(path, f"no such folder, and {error}") from error
    elif not folder.exists():
        raise no_model(path)
    if not (folder / INDEX_NAME).is_file():
        raise UserError(f"{path} is not a model: a folder with model_index.json, unet/ and scheduler/ is needed")
    return folder


def kept_class_names(path: str | PathLike[str]) -> list[str] | None:
    """The classes of a saved model, or of a run, by name and in order; None if it has none, or there is no model."""
    try:
        names = read_json(pipeline_folder(path) / INDEX_NAME).get("class_names")
    except UserError:
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def own_folder(path: str | PathLike[str]) -> Path:
    """`pipeline_folder` of a model that will be changed. Raises `UserError` as it does, and for a model of the package
    or the hub."""
    folder = pipeline_folder(path)
    if is_pretrained(folder):
        raise UserError(f"{path} comes with sddpm and must not be changed: copy it first, cp -r {folder} FOLDER")
    if is_hub_id(path):
        raise UserError(f"{path} is from the hub and must not be changed: copy it first, cp -rL {folder} FOLDER")
    return folder
