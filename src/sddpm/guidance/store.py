"""Saves the choice of guidance in a saved model, in addition to the trained thresholds."""

import json
from collections.abc import Mapping
from os import PathLike
from typing import Any

from sddpm.choices import check_choice
from sddpm.diffusion.objectives import check_x0_scale
from sddpm.diffusion.timesteps import refuse_other_samplers
from sddpm.errors import UserError
from sddpm.files import atomic_path
from sddpm.opening.json_files import read_json
from sddpm.pipelines.moments import CONFIG_FILE
from sddpm.pipelines.resolving import own_folder
from sddpm.pipelines.samplers import Sampler, check_sampler_name, read_samplers
from sddpm.pipelines.threshold_guidance import kept_thresholds
from sddpm.pretrained import INDEX_NAME


def store_guidance(
    model: str | PathLike[str], guidance: Mapping[str, Any] | None, x0_scale: float | None = None
) -> None:
    """Write `threshold_guidance` into the model_index.json of a saved model, or remove it if None; also x0_scale if it
    is given, where 1 removes it.

    The weights and the trained thresholds do not change. The file is replaced atomically.

    Raises:
        UserError: no saved model there, or one that comes with the package; guidance without thresholds; an invalid
            scale; a file that cannot be written.
    """
    kept_thresholds(guidance)
    _write(model, {"threshold_guidance": dict(guidance) if guidance is not None else None} | _scale(x0_scale))


def store_x0_scale(model: str | PathLike[str], x0_scale: float) -> None:
    """Write `x0_scale` into the model_index.json of a saved model, or remove it if 1; as `store_guidance`."""
    _write(model, _scale(x0_scale))


def store_sampler(model: str | PathLike[str], name: str, sampler: Sampler | None, *, default: bool = True) -> None:
    """Save a named sampler in the model_index.json of a saved model, or remove it if None; as `store_guidance`.

    Args:
        model: a saved model or a run.
        name: a letter, then letters, digits and any of _.+-
        sampler: the sampler to save.
        default: whether it becomes the default sampler.

    Raises:
        UserError: as in `store_guidance`; an invalid name or sampler, a distilled model, or no sampler of that name to
            remove.
    """
    check_sampler_name(name)
    folder = own_folder(model)
    index = read_json(folder / INDEX_NAME)
    kept, chosen = dict(index.get("samplers") or {}), index.get("sampler")
    if sampler is None:
        if not kept:
            raise UserError(f"{model} has no saved sampler to remove")
        check_choice("sampler", name, kept)
        del kept[name]
        chosen = None if chosen == name else chosen
    else:
        scheduler = read_json(folder / CONFIG_FILE)
        refuse_other_samplers(scheduler)
        kept[name] = sampler.to_dict()
        read_samplers({name: kept[name]}, None, scheduler["num_train_timesteps"])  # for its checks
        chosen = name if default else chosen
    _write(model, {"samplers": kept or None, "sampler": chosen})


def _scale(x0_scale: float | None) -> dict[str, Any]:
    if x0_scale is None:
        return {}
    check_x0_scale(x0_scale)
    return {"x0_scale": None if x0_scale == 1 else x0_scale}


def _write(model: str | PathLike[str], entries: Mapping[str, Any]) -> None:
    """Set entries, or remove those that are None."""
    path = own_folder(model) / INDEX_NAME
    index = {key: value for key, value in read_json(path).items() if key not in entries}
    index |= {key: value for key, value in entries.items() if value is not None}
    with atomic_path(path) as temporary:  # in diffusers' formatting, so that nothing else in the file changes
        temporary.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
