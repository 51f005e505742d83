"""Reading a reference checkpoint without executing its pickle, and inferring the network from its tensors' shapes."""

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from sddpm.errors import UserError
from sddpm.opening.tensors import read_torch


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(weights by the reference's names, the rest of the file) of a reference checkpoint or a bare state dict.

    A `module.` prefix, as added by DataParallel, is removed. Only tensors and plain containers are unpickled.

    Raises:
        UserError: no such file, not a checkpoint of this layout, truncated, or a file with other objects.
    """
    content = read_torch(path, "torch checkpoint")
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}; expected {{net_model, optim, step, x_T}}")
    weights = content.get("net_model", content)
    rest = {key: value for key, value in content.items() if key != "net_model"} if "net_model" in content else {}
    if not isinstance(weights, dict) or not weights or not all(isinstance(v, Tensor) for v in weights.values()):
        found = ", ".join(map(str, list(content)[:6]))
        raise UserError(f"{path} is not an SDDPM checkpoint: expected the key net_model with tensors, found {found}")
    return {str(name).removeprefix("module."): tensor for name, tensor in weights.items()}, rest


def _width(weights: dict[str, Tensor], prefix: str) -> int | None:
    """Output channels of a block or resampling layer, from any of its tensors."""
    for leaf in ("bn2.weight", "bn1.weight", "bn.weight", "bn2.bias", "bn1.bias", "bn.bias"):
        tensor = weights.get(f"{prefix}.{leaf}")
        if tensor is not None and tensor.ndim == 1:
            return tensor.shape[0]
    return None


def _shape(weights: dict[str, Tensor], names: tuple[str, ...], ndim: int) -> tuple[int, ...]:
    for name in names:
        if name in weights and weights[name].ndim == ndim:
            return tuple(weights[name].shape)
    raise UserError(f"this is not an SDDPM checkpoint: it has no tensor {names[0]}")


def infer_config(weights: dict[str, Tensor]) -> dict[str, Any]:
    """The part of a `SpikingUNet2DModel` configuration that can be inferred from the tensors.

    Channels, levels, blocks per level, the number of diffusion steps, TSM, and with TSM also T. A single missing tensor
    does not change the result; the caller must report missing tensors.

    Raises:
        UserError: tensors that are not of this network.
    """
    modulated = any(name.endswith(".tsmp") for name in weights)
    inner = ".tsmconv" if modulated else ""
    table = _shape(weights, ("time_embedding.timembedding.0.weight",), 2)
    stem = _shape(weights, (f"conv{inner}.weight",), 4)
    tail = _shape(weights, (f"tail_conv{inner}.weight",), 4)
    if 0 in (*stem[:2], tail[0]):
        raise UserError("this is not an SDDPM checkpoint: a convolution has no channels")
    steps = {tensor.shape[0] for name, tensor in weights.items() if name.endswith(".tsmp") and tensor.ndim}
    if len(steps) > 1:
        raise UserError(f"the TSM parameters have different T, {sorted(steps)}: all must have the same")

    numbers = sorted({int(m[1]) for name in weights if (m := re.match(r"downblocks\.(\d+)\.", name))})
    levels: list[list[int]] = [[]]
    for number in numbers:
        prefix = f"downblocks.{number}"
        is_block = any(name.startswith((f"{prefix}.conv1.", f"{prefix}.bn1.", f"{prefix}.bn2.")) for name in weights)
        width = _width(weights, prefix)
        if not is_block:
            levels.append([])
        elif width is not None:
            levels[-1].append(width)
    base = stem[0]
    if not all(levels) or any(width % base for level in levels for width in level):
        raise UserError("this is not an SDDPM checkpoint: its downblocks.N are not levels of residual blocks")
    config: dict[str, Any] = {
        "in_channels": stem[1],
        "out_channels": tail[0],
        "base_channels": base,
        "channel_mult": tuple(level[0] // base for level in levels),
        "num_res_blocks": max(len(level) for level in levels),
        "num_train_timesteps": table[0],
        "temporal_modulation": modulated,
    }
    return config | {"T": steps.pop()} if steps else config
