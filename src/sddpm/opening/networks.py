"""A saved network: its config and the header of its weights are compared before memory is allocated."""

from pathlib import Path
from typing import Any

import torch

from sddpm.errors import UserError, reason
from sddpm.opening.checksums import check_checksums
from sddpm.opening.files import check_memory
from sddpm.opening.json_files import read_json
from sddpm.opening.tensors import safetensors_shapes

CONFIG_NAME, WEIGHTS_NAME = "config.json", "diffusion_pytorch_model.safetensors"
WEIGHTS_INDEX = f"{WEIGHTS_NAME}.index.json"
Shapes = dict[str, tuple[int, ...]]


def check_network(folder: Path, network: Any) -> None:
    """Raise `UserError` unless the config in `folder` describes a network of this class that fits the weights there.

    Args:
        folder: a folder with config.json, and weights in one .safetensors or in several with an index.
        network: a model class as in diffusers, with `from_config`.
    """
    config = read_json(folder / CONFIG_NAME)
    if "quantization_config" in config:
        raise UserError(f"{folder / CONFIG_NAME}: quantised weights (quantization_config) are not read")
    held = _weight_shapes(folder)
    expected = _network_shapes(folder, network, config)
    weights = folder / WEIGHTS_NAME
    for kind, names in (("missing", expected.keys() - held.keys()), ("unexpected", held.keys() - expected.keys())):
        if names:
            some = ", ".join(sorted(names)[:5])
            raise UserError(f"{weights} does not fit its config.json: {kind} weights {some}")
    for name, shape in expected.items():
        if held[name] != shape:
            raise UserError(
                f"{weights} does not fit its config.json: {name} expected shape {list(shape)}, found {list(held[name])}"
            )
    check_checksums(folder)


def variant_of(folder: Path) -> str | None:
    """The variant, such as "fp16", of the weights in `folder`, if there is exactly one."""
    stem, _, suffix = WEIGHTS_NAME.partition(".")
    found = [] if (folder / WEIGHTS_NAME).exists() else sorted(folder.glob(f"{stem}.*.{suffix}"))
    return found[0].name.split(".")[1] if len(found) == 1 else None


def _weight_shapes(folder: Path) -> Shapes:
    if (folder / WEIGHTS_NAME).exists():
        return safetensors_shapes(folder / WEIGHTS_NAME)
    if (variant := variant_of(folder)) is not None:
        stem, _, suffix = WEIGHTS_NAME.partition(".")
        return safetensors_shapes(folder / f"{stem}.{variant}.{suffix}")
    if not (folder / WEIGHTS_INDEX).exists():
        raise UserError(f"no file named {WEIGHTS_NAME} in {folder}")
    places = read_json(folder / WEIGHTS_INDEX).get("weight_map")
    names = set(places.values()) if isinstance(places, dict) else {None}
    shapes: Shapes = {}
    for name in sorted(names, key=str):
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise UserError(
                f"{folder / WEIGHTS_INDEX} names {name!r}: weights are only read from .safetensors files next to it, "
                "since "
                "pickles can execute code"
            )
        shapes |= safetensors_shapes(folder / name)
    return shapes


def _network_shapes(folder: Path, network: Any, config: dict[str, Any]) -> Shapes:
    """Names and shapes of the parameters of a config, from a network on the meta device, without memory."""
    try:
        with torch.device("meta"):
            made = network.from_config(config)
        state = made.state_dict()
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error
    except Exception as error:  # classes raise various errors for invalid values
        raise UserError(f"cannot make a network from {folder / CONFIG_NAME}: {reason(error)}") from error
    check_memory(sum(value.numel() * value.element_size() for value in state.values()), str(folder))
    return {name: tuple(value.shape) for name, value in state.items()}
