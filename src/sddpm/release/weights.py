"""Weights in half precision, for released models."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from sddpm.errors import UserError
from sddpm.opening.tensors import read_safetensors


def halve(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convolutions, linear layers and embeddings as float16; tensors with one value per channel are not changed.

    Tensors with one value per channel (batch norm, biases, learned decays) are a thousandth of a network and decide
    whether a membrane reaches its threshold. Readers (`load_pipeline`, diffusers' `from_pretrained`) convert all to
    float32.

    Raises:
        UserError: a weight out of float16's range (above 65,504), or NaN.
    """
    halves = {name: tensor.half() if _many(tensor) else tensor for name, tensor in weights.items()}
    for name, tensor in halves.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(
                f"{name} has NaN or values out of the range of half precision: release a model that has been trained"
            )
    return halves


def _many(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.ndim > 1


def halve_file(path: Path) -> None:
    """Convert a .safetensors file of diffusers to half the size. Raises `UserError` as `halve` does."""
    save_file({k: v.contiguous() for k, v in halve(read_safetensors(path)).items()}, path, metadata={"format": "pt"})
