"""Weights in half precision, for models that travel."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from sddpm.errors import UserError
from sddpm.opening.tensors import read_safetensors


def halve(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convolutions, linear layers and embeddings as float16; whatever has one value a channel as it is.

    What has one value a channel (batch norm, biases, learned decays) is a thousandth of a network and decides whether a
    membrane reaches its threshold. Readers (`load_pipeline`, diffusers' `from_pretrained`) make float32 of all.

    Raises:
        UserError: a weight that float16 cannot hold, 65,504 and above, or that is no number.
    """
    halves = {name: tensor.half() if _many(tensor) else tensor for name, tensor in weights.items()}
    for name, tensor in halves.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(f"{name} holds values beyond half precision or NaN: release a model that has been trained")
    return halves


def _many(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.ndim > 1


def halve_file(path: Path) -> None:
    """Make a .safetensors file of diffusers half as large. Raises `UserError` as `halve`."""
    save_file({k: v.contiguous() for k, v in halve(read_safetensors(path)).items()}, path, metadata={"format": "pt"})
