"""Checkpoints: a folder of safetensors and a state.json, written atomically and checked when read.

    checkpoints/step-0001000/  model.safetensors  ema.safetensors  optimizer.safetensors  state.json

and power.safetensors if the run keeps power-function averages.

state.json is written last and holds the SHA-256 of the other files, so that a damaged checkpoint is detected. It also
holds the version of this format, so that a newer format is refused and not misread.
"""

import json
import math
import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

import sddpm
from sddpm.errors import UserError, reason
from sddpm.files import atomic_path
from sddpm.files.scratch import close_scratch
from sddpm.hashes import sha256_of
from sddpm.opening.json_files import read_json
from sddpm.opening.tensors import read_safetensors
from sddpm.training.snapshots import named_averages, of_width
from sddpm.training.state import TrainState

TENSOR_FILES = ("model.safetensors", "ema.safetensors", "optimizer.safetensors")
POWER_FILE = "power.safetensors"  # of a run with train.ema_power: its averages, as in a snapshot
STATE_FILE = "state.json"
FORMAT = 1  # of written checkpoints; older ones without a number are format 1 too


class LaterFormat(UserError):
    """An intact checkpoint in a format that only a later version of sddpm reads."""


def checkpoint_path(run_dir: Path, step: int) -> Path:
    """The folder of a checkpoint."""
    return run_dir / "checkpoints" / f"step-{step:07d}"


def list_checkpoints(run_dir: Path) -> list[Path]:
    """The checkpoints of a run, oldest first, including damaged ones."""
    found = [
        path
        for path in (run_dir / "checkpoints").glob("step-*")
        if path.name[5:].isascii() and path.name[5:].isdecimal()
    ]
    return sorted(found, key=lambda path: int(path.name[5:]))


def save_checkpoint(run_dir: Path, state: TrainState, config: Mapping[str, Any], processes: int, keep: int) -> Path:
    """Write the checkpoint of the state's step, then delete all but the newest `keep`. Returns its folder.

    Raises:
        UserError: it could not be written, e.g. a full disk; earlier checkpoints are unchanged.
    """
    path = checkpoint_path(run_dir, state.step)
    tensors = (state.model.state_dict(), state.ema.state_dict(), _optimizer_tensors(state))
    description = {
        "format": FORMAT,
        "step": state.step,
        "seconds": state.seconds,
        "moments_since": state.optimizer_since,
        "config": config,
        "processes": processes,
        "versions": {"sddpm": sddpm.__version__, "torch": torch.__version__, "python": platform.python_version()},
    }
    files: dict[str, Mapping[str, Tensor]] = dict(zip(TENSOR_FILES, tensors, strict=True))
    if state.power:
        files[POWER_FILE] = named_averages(state.power)
    write_checkpoint(path, files, description)
    for old in list_checkpoints(run_dir)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def write_checkpoint(path: Path, tensors: Mapping[str, Mapping[str, Tensor]], description: Mapping[str, Any]) -> None:
    """Write a checkpoint's folder and sync it to disk: tensors by file name, and state.json with their hashes.

    Raises:
        UserError: it could not be written; nothing is left of it.
    """
    with atomic_path(path, owned=True) as folder:
        folder.mkdir()
        hashes = {}
        for name, values in tensors.items():
            save_file({key: value.contiguous() for key, value in values.items()}, folder / name)
            hashes[name] = sha256_of(folder / name)
        text = json.dumps({**description, "sha256": hashes}, indent=1)
        (folder / STATE_FILE).write_text(text, encoding="utf-8")
        for file in folder.iterdir():
            _sync(file)
        _sync(folder)
    _sync(path.parent)


def read_description(path: Path) -> dict[str, Any]:
    """state.json of a checkpoint, after checking that all its files are intact.

    Raises:
        UserError: a file, which is named, is missing or damaged; or a later version of sddpm wrote the checkpoint.
    """
    if not os.path.lexists(path / STATE_FILE):
        raise UserError(f"checkpoint {path} is damaged: {STATE_FILE} is missing")
    try:
        description = read_json(path / STATE_FILE)
        edition = description.get("format", FORMAT)
        if isinstance(edition, int) and edition > FORMAT:
            raise LaterFormat(
                f"checkpoint {path} has format {edition}, written by a later version of sddpm; this one reads formats "
                "up "
                f"to {FORMAT}: install the later version"
            )
        check_description(description)
        hashes = description["sha256"]
        expected = {name: str(hashes[name]) for name in (*TENSOR_FILES, *({POWER_FILE} & hashes.keys()))}
    except LaterFormat:
        raise
    except (UserError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"checkpoint {path} is damaged: {STATE_FILE} is incomplete or changed ({error})") from error
    for name, value in expected.items():
        if not (path / name).is_file():
            raise UserError(f"checkpoint {path} is damaged: {name} is missing")
        if sha256_of(path / name) != value:
            raise UserError(f"checkpoint {path} is damaged: {name} is incomplete or changed")
    return description


def check_description(description: Mapping[str, Any]) -> None:
    """Raise `TypeError`, `KeyError` or `UserError` unless state.json has the right entries."""
    counts = [description["step"], description.get("moments_since", 0), description.get("processes", 1)]
    seconds, config = description["seconds"], description["config"]
    if not all(type(count) is int and 0 <= count < 2**53 for count in counts):
        raise TypeError(f"whole numbers were expected, not {counts}")
    if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
        raise TypeError(f"a number of seconds was expected, not {seconds!r}")
    if not all(isinstance(config[section], dict) for section in ("data", "model", "diffusion", "train")):
        raise TypeError("sections of a config were expected")


def newest_checkpoint(run_dir: Path) -> tuple[Path, dict[str, Any]]:
    """The newest checkpoint of a run and its description, checked.

    Raises:
        UserError: there is none, or it is damaged; the message names the newest intact one.
    """
    checkpoints = list_checkpoints(run_dir)
    if not checkpoints:
        raise UserError(
            f"nothing to resume: {run_dir} has no checkpoint; leave out `resume` to start the run, in another folder "
            "if its config has changed"
        )
    try:
        return checkpoints[-1], read_description(checkpoints[-1])
    except LaterFormat:
        raise
    except UserError as error:
        damage = error
    for earlier in reversed(checkpoints[:-1]):
        try:
            read_description(earlier)
        except UserError:
            continue
        raise UserError(f"{damage}; delete that folder to resume from {earlier.name}, which is intact")
    raise UserError(f"{damage}; {run_dir} has no other intact checkpoint")


def restore(state: TrainState, path: Path, description: Mapping[str, Any], device: torch.device) -> None:
    """Load a checked checkpoint into `state`, in place (memory layouts do not change)."""
    files = [read_safetensors(path / name, device) for name in TENSOR_FILES]
    try:
        state.model.load_state_dict(files[0])
        state.ema.load_state_dict(files[1])
        _restore_optimizer(state, files[2])
        power = read_safetensors(path / POWER_FILE, device) if state.power else {}
        for width, average in state.power.items():
            average.load_state_dict(of_width(power, width))
    except (RuntimeError, KeyError) as error:
        raise UserError(f"checkpoint {path} does not fit the model of this config: {reason(error)}") from error
    state.step, state.seconds = int(description["step"]), float(description["seconds"])
    state.optimizer_since = int(description.get("moments_since", 0))


def remove_unfinished(run_dir: Path) -> None:
    """Delete incomplete files that a killed process left."""
    for pattern in (  # their process has ended: this one holds the lock of the folder
        "checkpoints/.step-*",
        ".model.*",
        ".config.yaml.*",
        ".history.yaml.*",
        ".metrics.jsonl.*",
        ".loss.png.*",
        ".modulation.png.*",
        "samples/.step-*",
        "snapshots/.step-*",
    ):
        for path in run_dir.glob(pattern):
            close_scratch(path)  # restores files that were moved away to be replaced
            shutil.rmtree(path, ignore_errors=True)


def _parameter_names(state: TrainState) -> dict[Tensor, str]:
    return {parameter: name for name, parameter in state.model.named_parameters()}


def _optimizer_tensors(state: TrainState) -> dict[str, Tensor]:
    """Adam's moments and step counts by name: "exp_avg/encoder.conv.weight"."""
    names = _parameter_names(state)
    return {
        f"{key}/{names[parameter]}": value
        for parameter, values in state.optimizer.state.items()
        for key, value in values.items()
    }


def _restore_optimizer(state: TrainState, tensors: Mapping[str, Tensor]) -> None:
    names = {name: parameter for parameter, name in _parameter_names(state).items()}
    for key, value in tensors.items():
        kind, _, name = key.partition("/")
        parameter = names[name]
        if kind != "step":  # moments must have the memory layout of the parameter
            value = torch.empty_like(parameter, requires_grad=False).copy_(value)
        state.optimizer.state[parameter][kind] = value


def _sync(path: Path) -> None:
    """Flush the system's cache to disk (on Windows folders cannot be opened and need no flush)."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
