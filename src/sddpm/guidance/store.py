"""Keeping chosen thresholds with a saved model, beside those it was trained with."""

import json
from collections.abc import Mapping
from os import PathLike
from typing import Any

from sddpm.files import atomic_path
from sddpm.pipelines.loading import INDEX_NAME, own_folder, read_json
from sddpm.pipelines.threshold_guidance import kept_thresholds


def store_guidance(model: str | PathLike[str], guidance: Mapping[str, Any] | None) -> None:
    """Write `threshold_guidance` into the model_index.json of a saved model, or with None take it out.

    The weights and the thresholds of the training stay as they are. The file is replaced whole or not at all.

    Raises:
        UserError: no saved model there, or one that comes with the package; guidance without thresholds; a file that
            cannot be written.
    """
    kept_thresholds(guidance)
    path = own_folder(model) / INDEX_NAME
    index = {key: value for key, value in read_json(path).items() if key != "threshold_guidance"}
    if guidance is not None:
        index["threshold_guidance"] = dict(guidance)
    with atomic_path(path) as temporary:  # in the form of diffusers, so that nothing else in the file changes
        temporary.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
