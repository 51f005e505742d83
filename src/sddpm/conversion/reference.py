"""Checkpoints of the authors' code (AndyCao1125/SDDPM and its SDM folder) to our models and back."""

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sddpm.conversion.checkpoints import infer_config, read_checkpoint
from sddpm.conversion.names import reference_names, reference_shape
from sddpm.errors import UserError
from sddpm.files import atomic_path
from sddpm.models import SpikingUNet2DModel

# Values that a plain checkpoint does not contain, as used by the reference code.
ASSUMED: dict[str, Any] = {"T": 4, "neuron": "if", "v_threshold": 1.0}
# Another value would need other tensors than those of a checkpoint, or use them otherwise.
LAYOUT: dict[str, Any] = {
    "pure": False,
    "num_classes": None,
    "dims": 2,
    "patch_size": 1,
    "attention_resolutions": (),
    "synaptic_currents": False,
    "input_skip": False,
}


@dataclass(frozen=True)
class Conversion:
    """A converted model, with the values inferred from the tensors and the assumed ones."""

    model: SpikingUNet2DModel
    found: dict[str, Any]
    assumed: dict[str, Any]
    given: dict[str, Any]

    def summary(self) -> str:
        """One line: what was found, what was given, what was assumed."""
        parts = [("found", self.found), ("given", self.given), ("assumed", self.assumed)]
        return "; ".join(f"{what} {_list(values)}" for what, values in parts if values)


def _list(values: dict[str, Any]) -> str:
    return ", ".join(f"{key}={list(v) if isinstance(v, tuple) else v}" for key, v in values.items())


def _some(names: Iterable[str], limit: int = 8) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def from_reference(path: str | Path, **given: Any) -> Conversion:
    """Read a reference checkpoint (SDDPM or TSM) as a `SpikingUNet2DModel` in evaluation mode.

    Args:
        path: a torch file {net_model, optim, step, x_T}, or a bare state dict. Its pickle is not executed.
        given: configuration values that the tensors do not determine (T, neuron, v_threshold, sample_size, ...); they
            override assumed values, and must agree with inferred ones.

    Raises:
        UserError: a file that is not such a checkpoint; missing, surplus, misshapen or non-finite tensors, by name;
            a given value that the tensors contradict, or that the reference's layout does not express.
    """
    path = Path(path)
    weights, rest = read_checkpoint(path)
    found = infer_config(weights)
    x_T = rest.get("x_T")
    if isinstance(x_T, Tensor) and x_T.ndim == 4:
        found["sample_size"] = x_T.shape[-1]
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    for key, value in given.items():
        if key in found and found[key] != value:
            raise UserError(f"{path} shows {key}={found[key]}, but {key}={value} was given")
        if key in LAYOUT and LAYOUT[key] != value:
            raise UserError(f"the reference's network has {key}={LAYOUT[key]}, but {key}={value} was given")
    defaults: dict[str, Any] = {"sample_size": 32} | ASSUMED
    assumed = {key: value for key, value in defaults.items() if key not in found and key not in given}
    given = {key: value for key, value in given.items() if key not in found}

    config: dict[str, Any] = found | assumed | given
    names = reference_names(config)
    _check_names(path, set(names.values()), set(weights))
    model = SpikingUNet2DModel(**config)
    state = model.state_dict()
    for ours, theirs in names.items():
        expected = reference_shape(theirs, tuple(state[ours].shape))
        if tuple(weights[theirs].shape) != expected:
            raise UserError(f"{path}: {theirs} is {list(weights[theirs].shape)}, expected {list(expected)}")
        if not weights[theirs].isfinite().all():
            raise UserError(f"{path}: {theirs} has values that are not finite")
        state[ours] = weights[theirs].reshape(state[ours].shape)
    model.load_state_dict(state)
    return Conversion(model.eval(), found, assumed, given)


def _check_names(path: Path, expected: set[str], present: set[str]) -> None:
    problems = []
    if missing := sorted(expected - present):
        problems.append(f"lacks {_some(missing)}")
    if surplus := sorted(present - expected):
        problems.append(f"has surplus {_some(surplus)}")
    if problems:
        raise UserError(f"{path} is not a complete SDDPM checkpoint: it {' and '.join(problems)}")


def to_reference(model: SpikingUNet2DModel) -> dict[str, Tensor]:
    """The weights of `model` by the reference's names and in its shapes, for its `load_state_dict`.

    Raises:
        UserError: a model that the reference's network does not support.
    """
    config = model.config
    expressible = {
        **{key: value for key, value in LAYOUT.items() if key != "attention_resolutions"},  # a list if loaded
        "readout_decay": 0.8,
        "neuron": "if",
        "v_reset": 0.0,
        "initial_charge": 0.0,
        "signed_spikes": False,
        "out_channels": config["in_channels"],
    }
    for key, value in expressible.items():
        if config[key] != value:
            raise UserError(f"the reference's network has {key}={value}, this model has {config[key]}")
    if isinstance(config["v_threshold"], Mapping):
        raise UserError("the reference's network has one threshold, this model has one for each layer")
    if config["attention_resolutions"]:
        raise UserError("the reference's network has no attention, but this model has")
    state = model.state_dict()
    names = reference_names(config)
    return {
        theirs: state[ours].detach().cpu().contiguous().reshape(reference_shape(theirs, tuple(state[ours].shape)))
        for ours, theirs in names.items()
    }


def save_reference(model: SpikingUNet2DModel, path: str | Path) -> None:
    """Write `model` as a checkpoint file of the reference {net_model, step, x_T}, atomically.

    It has no `optim`, because the reference's loading code does not read it.
    """
    weights = to_reference(model)
    config = model.config
    shape = (1, config["in_channels"], config["sample_size"], config["sample_size"])
    content = io.BytesIO()  # so that a full disk is an OSError that we report, not a failed assertion inside torch
    torch.save({"net_model": weights, "step": 0, "x_T": torch.zeros(shape)}, content)
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(content.getbuffer())
