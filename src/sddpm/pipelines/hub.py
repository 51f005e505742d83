"""Models on the Hugging Face hub: fetching one, sending one, and what plain diffusers needs to load one.

HF_ENDPOINT names another hub, HF_TOKEN who is sending, HF_HUB_OFFLINE=1 keeps to what was fetched before: all of them
are huggingface_hub's own. Nothing that is fetched is executed.
"""

import json
import logging
import re
from os import PathLike
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import RepositoryNotFoundError

from sddpm.errors import UserError
from sddpm.opening.json_files import read_json

PIPELINE_FILE = "pipeline.py"
PIPELINE_CODE = '''"""For `DiffusionPipeline.from_pretrained(..., trust_remote_code=True)`, where sddpm is installed."""

from sddpm.pipelines import SpikingDiffusionPipeline

__all__ = ["SpikingDiffusionPipeline"]
'''
_MODEL_FILES = (
    "model_index.json",
    "unet/*.json",
    "unet/*.safetensors",
    "unet/SHA256SUMS",
    "scheduler/*.json",
    "README.md",
    "config.yaml",
)
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(name: str | PathLike[str]) -> bool:
    """Whether a name has the form user/model, and nothing of this machine is called so."""
    return _ID.fullmatch(str(name)) is not None and not Path(name).exists()


def check_hub_id(name: str) -> None:
    """Raise `UserError` unless a name has the form user/model."""
    if _ID.fullmatch(name) is None:
        raise UserError(f"the name of a model on the hub is user/model, not {name!r}")


def fetch_model(name: str) -> Path:
    """The folder of the model user/model, fetched from the hub unless it was before. No code is fetched.

    Raises:
        UserError: the hub has no such model, or does not answer and the model was not fetched before.
    """
    try:
        return Path(snapshot_download(name, allow_patterns=list(_MODEL_FILES), etag_timeout=10))
    except RepositoryNotFoundError as error:
        raise UserError(f"the hub has no model {name}, or it is private: log in with `hf auth login`") from error
    except Exception as error:  # of huggingface_hub, of the library that it speaks HTTP with, or of the system
        raise UserError(f"cannot fetch {name} from the hub: {_reason(error)}") from error


def send_model(folder: Path, name: str) -> str:
    """Send a saved or released model to the hub as user/model; returns its address.

    Raises:
        UserError: an invalid name, nobody logged in, or a hub that refuses or does not answer.
    """
    check_hub_id(name)
    api = HfApi()
    try:
        api.create_repo(name, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message=f"sddpm release of {folder.name}")
        return f"{api.endpoint}/{name}"
    except Exception as error:  # as above
        if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
            raise UserError(f"the hub lets nobody here write {name}: log in with `hf auth login`") from error
        raise UserError(f"cannot send {name} to the hub: {_reason(error)}") from error


def make_loadable(folder: Path) -> None:
    """Let plain diffusers load a saved `SpikingDiffusionPipeline` with trust_remote_code=True."""
    index = folder / "model_index.json"
    content = read_json(index)
    content["_class_name"] = [Path(PIPELINE_FILE).stem, "SpikingDiffusionPipeline"]
    index.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / PIPELINE_FILE).write_text(PIPELINE_CODE, encoding="utf-8")


def _reason(error: Exception) -> str:
    """The first line of what huggingface_hub says, or of what made it say so."""
    logging.getLogger(__name__).debug("the hub failed", exc_info=error)
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
