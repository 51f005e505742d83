"""One optimiser step on this process's share of a batch."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from sddpm.training.batches import Batch
from sddpm.training.config import TrainConfig
from sddpm.training.ema import ema_decay_at, update_ema
from sddpm.training.objective import Loss
from sddpm.training.optim import learning_rate, optimizer_warmup, set_learning_rate
from sddpm.training.power_ema import beta, gamma_of
from sddpm.training.state import TrainState


class StepMeasures(NamedTuple):
    """Measurements of a step, each [] on the device: the mean error of the prediction, the gradient norm before
    clipping, and the firing rate of all neurons (0 if no penalty needs it)."""

    loss: Tensor
    grad_norm: Tensor
    firing_rate: Tensor


def backward(
    prepared: nn.Module,
    batch: Batch,
    loss_of: Callable[[nn.Module, Batch], Loss],
    accelerator: Accelerator,
    config: TrainConfig,
) -> StepMeasures:
    """Gradients of the mean loss over the global batch, clipped.

    Args:
        prepared: the model wrapped by accelerate; gradients are reduced over the processes at the last micro-batch.

    Returns:
        This process's `StepMeasures`.
    """
    error = torch.zeros((), device=accelerator.device)
    firing_rate = torch.zeros((), device=accelerator.device)
    parts = batch.split(config.accumulation)
    for i, part in enumerate(parts):
        with nullcontext() if i == len(parts) - 1 else accelerator.no_sync(prepared):
            loss = loss_of(prepared, part)
            accelerator.backward(loss.total / len(parts))
        error += loss.error / len(parts)
        firing_rate += loss.firing_rate / len(parts)
    limit = config.max_grad_norm or float("inf")
    norm = nn.utils.clip_grad_norm_(prepared.parameters(), limit, foreach=True)
    return StepMeasures(error, norm.to(error), firing_rate)


def update(state: TrainState, config: TrainConfig) -> None:
    """Update the weights, their averages and the step counter."""
    rate = learning_rate(state.step, config)
    if state.optimizer_since:
        rate *= optimizer_warmup(state.step - state.optimizer_since, config)
    set_learning_rate(state.optimizer, rate)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    update_ema(state.ema, state.model, ema_decay_at(state.step, config.ema_decay))
    state.step += 1
    for width, average in state.power.items():
        update_ema(average, state.model, beta(state.step, gamma_of(width)))
