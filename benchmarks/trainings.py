"""Trainings of the benchmarks: to their end, with the settings that were wanted, and not twice.

    python benchmarks/trainings.py RUN

Prints "finished" or "unfinished".
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from sddpm.errors import UserError
from sddpm.opening.json_files import read_json
from sddpm.training import Config, load_config, train
from sddpm.training.checkpoint import list_checkpoints
from sddpm.training.config_files import changed_keys


def finished(run: Path) -> bool:
    """Whether a run has all the steps of its config, and a model with the weights of the last one.

    A signal and every checkpoint write a model too. The last row of the metrics is written before the last checkpoint,
    and that before the last model.
    """
    checkpoints, model = list_checkpoints(run), run / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    if not checkpoints or not model.is_file() or not (run / "config.yaml").is_file():
        return False
    last = read_json(checkpoints[-1] / "state.json")
    if last["step"] < load_config(run / "config.yaml").train.steps:
        return False
    weights, found = load_file(checkpoints[-1] / "ema.safetensors"), load_file(model)
    return weights.keys() == found.keys() and all(found[name].equal(weights[name]) for name in weights)


def check_settings(run: Path, config: Config) -> None:
    """Raise `UserError` if the run in this folder was begun with other settings or another number of steps."""
    before, now = _begun_with(run), config.to_dict()
    if before is not None and (changed := changed_keys(_portable(before), _portable(now))):
        raise UserError(f"{run} was trained with other values of {', '.join(changed)}: repeat them, or move it away")
    check_steps(run, config.train.steps)


def check_steps(run: Path, steps: int) -> None:
    """Raise `UserError` if the run in this folder was begun with another number of steps."""
    before = _begun_with(run)
    if before is not None and (planned := before["train"]["steps"]) != steps:
        raise UserError(f"{run} is a training of {planned} steps, not {steps}: repeat them, or move it away")


def _begun_with(run: Path) -> dict[str, Any] | None:
    """The config of the newest checkpoint, None if there is none."""
    checkpoints = list_checkpoints(run)
    return read_json(checkpoints[-1] / "state.json")["config"] if checkpoints else None


def _portable(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without what is no setting: the folder of the teacher, and thresholds by layer, which are those of the
    model that the training starts from."""
    model, options = dict(config["model"]), dict(config["train"])
    if isinstance(model.get("v_threshold"), Mapping):
        model["v_threshold"] = None
    if options.get("teacher") is not None:
        options["teacher"] = Path(options["teacher"]).name
    return {**config, "model": model, "train": options}


def trained(config: Config, run: Path, start: Path | str | None = None, device: str = "auto") -> Path:
    """The run, trained to its end, from its newest checkpoint if there is one.

    Raises:
        UserError: the folder has a run with other settings; otherwise as `train`.
        SystemExit: a signal ended the training.
    """
    check_settings(run, config)
    if not finished(run):
        resumed = bool(list_checkpoints(run))
        first = None if resumed else start
        result = train(config, run, resume=resumed, init_from=first, device=device, progress=False)
        if result.stopped_by != "steps":  # what follows is for a complete run
            raise SystemExit(f"stopped by {result.stopped_by}; run the same command to continue")
    return run


if __name__ == "__main__":
    print("finished" if finished(Path(sys.argv[1])) else "unfinished")
