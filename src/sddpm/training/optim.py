"""The optimiser and its learning rate."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from sddpm.models.modulation import modulation_scales
from sddpm.training.config import TrainConfig
from sddpm.training.muon import Muon, Together

# The first and last convolutions, of the spiking network and of the ANN.
EDGES = ("encoder.conv1.", "readout.", "unet.conv_in.", "unet.conv_out.")


def learning_rate(step: int, config: TrainConfig) -> float:
    """The learning rate of a step (from 0): linear warm-up, then constant, or down to 0 along a cosine or a line."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    match config.lr_schedule:
        case "cosine":
            return config.lr * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))
        case "linear":
            return config.lr * max(0.0, 1.0 - done)
    return config.lr


def optimizer_warmup(steps: int, config: TrainConfig) -> float:
    """The factor of the learning rate at a step (from 0) after a run continued without Adam's moments.

    Linear over 2 / (1 - beta_2) steps: earlier, the average of only a few squared gradients gives too large steps
    (Ma & Yarats, 2021, arXiv 1910.04209).
    """
    return min(1.0, (steps + 1) * (1.0 - config.betas[1]) / 2.0)


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """The parameters in groups for an optimiser. The scales of temporal modulation, if any, are a second group with
    their own learning rate and without weight decay, which would pull them away from 1. With Muon the convolutions
    between the first and the last are a group of their own, named "muon"."""
    scales = list(modulation_scales(model).values())
    matrices = [
        parameter
        for name, parameter in model.named_parameters()
        if config.optimizer == "muon" and parameter.ndim == 4 and not name.startswith(EDGES)
    ]
    apart = {id(parameter) for parameter in (*scales, *matrices)}
    groups: list[dict[str, Any]] = [{"params": [p for p in model.parameters() if id(p) not in apart]}]
    if matrices:
        groups.append({"params": matrices, "name": "muon"})
    if scales:
        rate = config.lr if config.modulation_lr is None else config.modulation_lr
        groups.append({"params": scales, "lr_factor": rate / config.lr, "weight_decay": 0.0})
    return groups


def make_optimizer(
    parameters: Iterable[Any], config: TrainConfig, device: torch.device
) -> torch.optim.Optimizer | Together:
    """Adam (Kingma & Ba, 2015) or AdamW (Loshchilov & Hutter, 2019), with a fused kernel if there is one; Muon for the
    groups with that name."""
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    groups = list(parameters)
    matrices = [group for group in groups if isinstance(group, dict) and group.get("name") == "muon"]
    rest = [group for group in groups if not any(group is other for other in matrices)]
    fused = device.type in ("cpu", "cuda", "mps")
    adam = kind(rest, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=fused)
    return Together(adam, Muon(matrices, config.lr, config.weight_decay)) if matrices else adam


def set_learning_rate(optimizer: torch.optim.Optimizer | Together, lr: float) -> None:
    """Set the learning rate of all parameters; the ratios between their groups stay the same."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_factor", 1.0)
