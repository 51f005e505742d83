"""Devices by name."""

import torch

from sddpm.errors import UserError


def pick_device(name: str = "auto") -> torch.device:
    """The device "cpu", "cuda" ("cuda:1"), "mps", or with "auto" the best available one.

    Raises:
        UserError: no such device on this machine.
    """
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if name == "auto":
        return torch.device(available[0])
    kind, colon, number = name.partition(":")
    numbers = map(str, range(torch.cuda.device_count()))
    if kind not in available or (colon and number not in numbers):
        raise UserError(f"device {name!r} is not available here: choose auto or one of {', '.join(available)}")
    return torch.device(name)
