"""Weights: .safetensors, and .pt files of torch.save, whose pickles are read without executing them."""

import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from sddpm.errors import UserError, reason
from sddpm.opening.files import check_file, check_memory


def safetensors_shapes(path: str | os.PathLike[str]) -> dict[str, tuple[int, ...]]:
    """Shapes by name, from the header alone. Raises `UserError` for no file, or a damaged one."""
    found = check_file(path, "file of weights")
    try:
        with safe_open(found, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  no dictionary
    except Exception as error:  # SafetensorError, and what a header that is no text raises
        raise UserError(f"{path} is damaged or not whole: {_reason(error)}") from error


def read_safetensors(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Tensors by name. Raises `UserError` for no file, a damaged one, or one that does not fit into memory."""
    found = check_file(path, "file of weights")
    check_memory(found.stat().st_size, str(path))
    # CPU tensors are copied to the device: safetensors does not know "cpu:0".
    try:
        with safe_open(found, framework="pt") as file:
            return {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118  no dictionary
    except Exception as error:
        raise UserError(f"{path} is damaged or not whole: {_reason(error)}") from error


def read_torch(path: str | os.PathLike[str], what: str) -> Any:
    """What torch.save wrote, on the CPU: tensors and plain containers of them.

    The checksums of the file, if it is a zip as torch writes since 1.6, are compared.

    Raises:
        UserError: no file; not one of torch's; truncated or damaged; holding other objects; tensors that claim more
            than the file holds.
    """
    found = check_file(path, what)
    if zipped := zipfile.is_zipfile(found):
        _check_zip(found, path, what)
    try:
        content = torch.load(found, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's, pickle's, and those of whatever a damaged pickle calls for
        if (named := re.search(r"GLOBAL (\S+)", str(error))) and zipped:
            raise UserError(
                f"{path} holds {named[1]}, which only a pickle that runs code can load; expected a {what} of tensors"
            ) from None
        raise UserError(f"{path} is no {what}, or a truncated one; download or copy it again") from error
    _check_tensors(content, path, found.stat().st_size)
    return content


def _check_zip(found: Path, path: Any, what: str) -> None:
    damaged = f"{path} is no {what}, or is damaged"
    try:
        with zipfile.ZipFile(found) as archive:
            packed = [member.filename for member in archive.infolist() if member.compress_type != zipfile.ZIP_STORED]
            if packed or sum(member.file_size for member in archive.infolist()) > found.stat().st_size:
                raise UserError(f"{damaged}: it is compressed, or claims more than it holds")
            bad = archive.testzip()
    except UserError:
        raise
    except Exception as error:  # BadZipFile, encryption, ...
        raise UserError(f"{damaged}: {_reason(error)}; download or copy it again") from error
    if bad is not None:
        raise UserError(f"{damaged}: the checksum of {bad} differs; download or copy it again")


def _check_tensors(content: Any, path: Any, size: int) -> None:
    """Refuse tensors of more elements than their storage, such as one number spread over a million by a stride of 0."""
    waiting, seen, containers = [content], 0, set()
    while waiting:
        value = waiting.pop()
        if id(value) in containers:  # one may hold itself
            continue
        if not isinstance(value, Tensor):
            containers.add(id(value))
        if isinstance(value, Tensor):
            dense = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
            if not dense or value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise UserError(f"{path} is damaged: it holds a tensor {list(value.shape)} without as many numbers")
            seen += value.numel() * value.element_size()
            if seen > 2 * size + 1024:
                raise UserError(f"{path} is damaged: its tensors claim more numbers than the file holds")
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value


def _reason(error: Exception) -> str:
    return reason(error).partition(". ")[0]
