"""Weights: .safetensors, and .pt files of torch.save, whose pickles are read without executing code."""

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
    """Shapes by name, from the header only. Raises `UserError` for a missing or damaged file."""
    found = check_file(path, "file of weights")
    try:
        with safe_open(found, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  no dictionary
    except Exception as error:  # SafetensorError, and errors of a header that is not text
        raise UserError(f"{path} is damaged or incomplete: {_reason(error)}") from error


def read_safetensors(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Tensors by name. Raises `UserError` for a missing or damaged file, or one that does not fit into memory."""
    found = check_file(path, "file of weights")
    check_memory(found.stat().st_size, str(path))
    # CPU tensors are copied to the device: safetensors does not accept "cpu:0".
    try:
        with safe_open(found, framework="pt") as file:
            return {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118  no dictionary
    except Exception as error:
        raise UserError(f"{path} is damaged or incomplete: {_reason(error)}") from error


def read_torch(path: str | os.PathLike[str], what: str) -> Any:
    """The content of a file of torch.save, on the CPU: tensors and plain containers of them.

    If the file is a zip, as written since torch 1.6, its checksums are verified.

    Raises:
        UserError: no such file; not one of torch's; truncated or damaged; holding other objects; tensors that claim
            more data than the file has.
    """
    found = check_file(path, what)
    if zipped := zipfile.is_zipfile(found):
        _check_zip(found, path, what)
    try:
        content = torch.load(found, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's, pickle's, and errors of any object in a damaged pickle
        if (named := re.search(r"GLOBAL (\S+)", str(error))) and zipped:
            raise UserError(
                f"{path} holds {named[1]}, which cannot be loaded without executing code; expected a {what} of tensors"
            ) from None
        raise UserError(f"{path} is not a {what}, or is truncated; download or copy it again") from error
    _check_tensors(content, path, found.stat().st_size)
    return content


def _check_zip(found: Path, path: Any, what: str) -> None:
    damaged = f"{path} is not a {what}, or is damaged"
    try:
        with zipfile.ZipFile(found) as archive:
            packed = [member.filename for member in archive.infolist() if member.compress_type != zipfile.ZIP_STORED]
            if packed or sum(member.file_size for member in archive.infolist()) > found.stat().st_size:
                raise UserError(f"{damaged}: it is compressed, or claims more data than it has")
            bad = archive.testzip()
    except UserError:
        raise
    except Exception as error:  # BadZipFile, encryption, ...
        raise UserError(f"{damaged}: {_reason(error)}; download or copy it again") from error
    if bad is not None:
        raise UserError(f"{damaged}: the checksum of {bad} differs; download or copy it again")


def _check_tensors(content: Any, path: Any, size: int) -> None:
    """Refuse tensors with more elements than their storage, such as one number repeated a million times by a stride of
    0."""
    waiting, seen, containers = [content], 0, set()
    while waiting:
        value = waiting.pop()
        if id(value) in containers:  # a container may contain itself
            continue
        if not isinstance(value, Tensor):
            containers.add(id(value))
        if isinstance(value, Tensor):
            dense = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
            if not dense or value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise UserError(f"{path} is damaged: the data of a tensor {list(value.shape)} are incomplete")
            seen += value.numel() * value.element_size()
            if seen > 2 * size + 1024:
                raise UserError(f"{path} is damaged: its tensors claim more data than the file has")
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value


def _reason(error: Exception) -> str:
    return reason(error).partition(". ")[0]
