"""Networks whose saved weights can be told from damaged ones."""

from os import PathLike
from pathlib import Path
from typing import Any

from diffusers.models.modeling_utils import ModelMixin

from sddpm.opening.checksums import write_checksums


class CheckedModel(ModelMixin):
    """diffusers' `ModelMixin` that saves the hashes of the weights beside them, which `load_pipeline` compares: weights
    that are saved anew over others bring their own."""

    def save_pretrained(self, save_directory: str | PathLike[str], *arguments: Any, **keywords: Any) -> None:
        super().save_pretrained(save_directory, *arguments, **keywords)
        write_checksums(Path(save_directory))
