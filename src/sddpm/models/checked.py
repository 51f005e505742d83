"""Networks whose saved weights can be told from damaged ones."""

from functools import wraps
from os import PathLike
from pathlib import Path
from typing import Any

from diffusers.models.modeling_utils import ModelMixin

from sddpm.opening.checksums import write_checksums


class Checked:
    """Goes before diffusers' `ModelMixin`: hashes of the weights are saved beside them, which `load_pipeline` compares,
    so that weights saved anew over others bring their own.

    (It is no subclass of `ModelMixin`, since diffusers looks for that name in the module of a model's class.)
    """

    @wraps(ModelMixin.save_pretrained)  # by whose signature a pipeline tells what to hand on, such as `variant`
    def save_pretrained(self, save_directory: str | PathLike[str], *arguments: Any, **keywords: Any) -> None:
        super().save_pretrained(save_directory, *arguments, **keywords)  # pyright: ignore[reportAttributeAccessIssue]
        write_checksums(Path(save_directory))
