"""The optimiser and its learning rate."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from sddpm.training.config import TrainConfig


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


def make_optimizer(parameters: Iterable[nn.Parameter], config: TrainConfig, device: torch.device) -> torch.optim.Adam:
    """Adam (Kingma & Ba, 2015) or AdamW (Loshchilov & Hutter, 2019), in one fused kernel where there is one."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    fused = device.type in ("cpu", "cuda", "mps")
    return kind(parameters, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=fused)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = lr
