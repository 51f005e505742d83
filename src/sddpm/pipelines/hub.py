"""Models on the Hugging Face hub: download, upload, and the file that plain diffusers needs to load one.

The environment variables are huggingface_hub's own: HF_ENDPOINT names another hub, HF_TOKEN identifies the user, and
HF_HUB_OFFLINE=1 uses only models downloaded before. Nothing that is downloaded is executed.
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

PIPELINE_FILE, PIPELINE_CLASS = "pipeline.py", "SpikingDiffusionPipeline"
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
    """Whether a name has the form user/model, and no file or folder on this machine has it."""
    return _ID.fullmatch(str(name)) is not None and not Path(name).exists()


def check_hub_id(name: str) -> None:
    """Raise `UserError` unless a name has the form user/model."""
    if _ID.fullmatch(name) is None:
        raise UserError(f"the name of a model on the hub is user/model, not {name!r}")


def fetch_model(name: str) -> Path:
    """The folder of the model user/model, downloaded from the hub if not done before. No code is downloaded.

    Raises:
        UserError: the hub has no such model, or cannot be reached and the model was not downloaded before.
    """
    try:
        return Path(snapshot_download(name, allow_patterns=list(_MODEL_FILES), etag_timeout=10))
    except RepositoryNotFoundError as error:
        raise UserError(f"the hub has no model {name}, or it is private: log in with `hf auth login`") from error
    except Exception as error:  # from huggingface_hub, its HTTP library or the system
        raise UserError(f"cannot fetch {name} from the hub: {_reason(error)}") from error


def send_model(folder: Path, name: str) -> str:
    """Send a saved or released model to the hub as user/model; returns its address.

    Raises:
        UserError: an invalid name, no login, or a hub that refuses or cannot be reached.
    """
    check_hub_id(name)
    api = HfApi()
    try:
        api.create_repo(name, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message=f"sddpm release of {folder.name}")
        return f"{api.endpoint}/{name}"
    except Exception as error:  # as above
        if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
            raise UserError(f"no permission to write {name} on the hub: log in with `hf auth login`") from error
        raise UserError(f"cannot send {name} to the hub: {_reason(error)}") from error


def make_loadable(folder: Path) -> None:
    """Add the file with which plain diffusers loads a saved `SpikingDiffusionPipeline` with trust_remote_code=True."""
    index = folder / "model_index.json"
    content = read_json(index)
    content["_class_name"] = [Path(PIPELINE_FILE).stem, PIPELINE_CLASS]
    index.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / PIPELINE_FILE).write_text(PIPELINE_CODE, encoding="utf-8")


def _reason(error: Exception) -> str:
    """The first line of huggingface_hub's error message, or of the error's cause."""
    logging.getLogger(__name__).debug("the hub failed", exc_info=error)
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
