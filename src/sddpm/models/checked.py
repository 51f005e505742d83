"""What all networks add to diffusers' `ModelMixin`."""

import sys
from functools import wraps
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin

from sddpm.opening.checksums import write_checksums


class Checked:
    """Goes before diffusers' `ModelMixin`: hashes of the weights are saved beside them, and `load_pipeline` compares
    them. Weights that are saved over older ones replace the hashes too.

    (It is not a subclass of `ModelMixin`, since diffusers looks for that name in the module of a model's class.)
    """

    @wraps(ModelMixin.save_pretrained)  # a pipeline reads this signature to decide what to pass on, such as `variant`
    def save_pretrained(self, save_directory: str | PathLike[str], *arguments: Any, **keywords: Any) -> None:
        super().save_pretrained(save_directory, *arguments, **keywords)  # pyright: ignore[reportAttributeAccessIssue]
        write_checksums(Path(save_directory))

    @property
    def device(self) -> torch.device:
        """As in diffusers, whose hooks for moving weights take a second to import: before that, there are none."""
        if "diffusers.hooks" in sys.modules:
            return super().device  # pyright: ignore[reportAttributeAccessIssue]
        return next(self.parameters()).device  # pyright: ignore[reportAttributeAccessIssue]
