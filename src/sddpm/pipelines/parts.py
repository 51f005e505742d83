"""Strict loading of the parts of a saved pipeline, with errors that say what to do."""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any

from diffusers.models.modeling_utils import ModelMixin
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.logging import get_verbosity, set_verbosity

import sddpm.diffusion.schedulers
import sddpm.models.unet  # noqa: F401  a model names its classes by module
from sddpm.diffusion.objectives import check_x0_scale
from sddpm.diffusion.timesteps import kept_timesteps
from sddpm.errors import UserError, reason
from sddpm.models.config import MOST_TIMESTEPS
from sddpm.opening.json_files import read_json
from sddpm.opening.networks import WEIGHTS_NAME, check_network, variant_of
from sddpm.pipelines.base import ABOUT
from sddpm.pipelines.hub import PIPELINE_CLASS, PIPELINE_FILE
from sddpm.pipelines.resolving import pipeline_folder
from sddpm.pipelines.threshold_guidance import kept_thresholds
from sddpm.pretrained import INDEX_NAME

_LATER = ("sddpm.models.ann",)  # imported for the models that need it: diffusers' U-Net takes a second to import
_LOADING = threading.Lock()  # verbosity and weight initialisation are settings of the whole process


@dataclass(frozen=True)
class Parts:
    """A model and a scheduler, and what is stored with them; folder: with model_index.json."""

    folder: Path
    unet: Any
    scheduler: Any
    about: dict[str, Any]

    @contextmanager
    def naming_the_file(self) -> Iterator[None]:
        """`UserError` in its block names the file whose values are checked there."""
        try:
            yield
        except UserError as error:
            raise UserError(f"{self.folder / INDEX_NAME}: {error}") from error


def load_parts(path: str | PathLike[str]) -> Parts:
    """The parts of a saved pipeline, on the CPU. Arguments and errors as those of `load_pipeline`."""
    folder = pipeline_folder(path)
    index = read_json(folder / INDEX_NAME)
    found, wanted = index.get("_class_name"), PIPELINE_CLASS
    if found not in (wanted, [Path(PIPELINE_FILE).stem, wanted]):
        raise UserError(f"{folder} contains a {found}, not a {wanted}")
    names = index.get("class_names")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise UserError(f"{folder / INDEX_NAME} is damaged: class_names must be a list of names, not {names!r}")
    spread = index.get("signal_range")
    if spread is not None and not (
        isinstance(spread, list) and len(spread) == 2 and all(type(value) in (int, float) for value in spread)
    ):
        raise UserError(f"{folder / INDEX_NAME} is damaged: signal_range must be two numbers, not {spread!r}")
    x0_scale = index.get("x0_scale")
    try:
        if x0_scale is not None:
            check_x0_scale(x0_scale)
        kept_thresholds(index.get("threshold_guidance"))
    except UserError as error:
        raise UserError(f"{folder / INDEX_NAME}: {error}") from error
    unet, scheduler = _load_unet(folder, index), _load_scheduler(folder, index)
    return Parts(folder, unet, scheduler, {name: index.get(name) for name in ABOUT})


def _load_unet(folder: Path, index: dict[str, Any]) -> ModelMixin:
    unet_class = _class_of(folder, index, "unet", ModelMixin)
    check_network(folder / "unet", unet_class)
    weights = folder / "unet" / WEIGHTS_NAME
    with _LOADING:
        verbosity = get_verbosity()
        set_verbosity(logging.CRITICAL)  # diffusers' warnings are errors below
        try:
            unet, found = unet_class.from_pretrained(
                folder / "unet",
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                variant=variant_of(folder / "unet"),
                low_cpu_mem_usage=False,  # else accelerate empties models that other threads build
            )
        except UserError as error:
            raise UserError(f"{folder / 'unet'}: {error}") from error
        except Exception as error:  # from diffusers and the libraries it uses
            first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise UserError(f"cannot load {folder / 'unet'}: {first.partition('. If you')[0]}") from error
        finally:
            set_verbosity(verbosity)
    for kind in ("missing_keys", "unexpected_keys"):
        if found[kind]:
            names = ", ".join(sorted(found[kind])[:5])
            raise UserError(f"{weights} does not fit its config.json: {kind.replace('_keys', '')} weights {names}")
    return unet


def _load_scheduler(folder: Path, index: dict[str, Any]) -> SchedulerMixin:
    scheduler_class = _class_of(folder, index, "scheduler", SchedulerMixin)
    file = folder / "scheduler" / "scheduler_config.json"
    config = read_json(file)
    steps, moments = config.get("num_train_timesteps", 1000), config.get("moments")
    if type(steps) is not int or not 1 <= steps <= MOST_TIMESTEPS:
        raise UserError(f"{file}: num_train_timesteps must be from 1 to {MOST_TIMESTEPS:,}, not {steps!r}")
    if moments is not None and not isinstance(moments, dict):
        raise UserError(f"{file} is damaged: moments must be from `sddpm moments`, not {moments!r}")
    try:
        kept_timesteps({"num_train_timesteps": steps, **config})
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    try:
        return scheduler_class.from_config(config)
    except Exception as error:  # diffusers' schedulers raise various errors for invalid values
        raise UserError(f"cannot make a scheduler from {file}: {reason(error)}") from error


def _class_of(folder: Path, index: dict[str, Any], part: str, base: type) -> Any:
    """The class named in model_index.json, if it has the right base class and its module is known: imported already, or
    of this package. No other module that a file names is imported."""
    try:
        library, name = index[part]
        if library in _LATER:
            import_module(library)
        found = getattr(sys.modules[library], name)
        if issubclass(found, base):
            return found
    except (KeyError, ValueError, TypeError, AttributeError):
        pass
    raise UserError(
        f"{folder / 'model_index.json'} names an unknown {part}, {index.get(part)}: it must be a class of sddpm or "
        "diffusers"
    )
