"""One optimiser step on this process's share of a batch."""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from sddpm.training.batches import Batch
from sddpm.training.config import TrainConfig
from sddpm.training.ema import ema_decay_at, update_ema
from sddpm.training.optim import learning_rate, set_learning_rate
from sddpm.training.state import TrainState


def backward(
    prepared: nn.Module,
    batch: Batch,
    loss_of: Callable[[nn.Module, Batch], Tensor],
    accelerator: Accelerator,
    config: TrainConfig,
) -> Tensor:
    """Gradients of the mean loss over the global batch, clipped.

    Args:
        prepared: the model as accelerate wraps it; gradients meet over the processes at the last micro-batch.

    Returns:
        [2] on the device: this process's mean loss, and the gradient's norm before clipping.
    """
    total = torch.zeros((), device=accelerator.device)
    parts = batch.split(config.accumulation)
    for i, part in enumerate(parts):
        with nullcontext() if i == len(parts) - 1 else accelerator.no_sync(prepared):
            loss = loss_of(prepared, part) / len(parts)
            accelerator.backward(loss)
        total += loss.detach()
    limit = config.max_grad_norm or float("inf")
    norm = nn.utils.clip_grad_norm_(prepared.parameters(), limit, foreach=True)
    return torch.stack([total, norm.to(total)])


def update(state: TrainState, config: TrainConfig) -> None:
    """Move the weights along their gradients, and the average towards them; the state is then one step further."""
    set_learning_rate(state.optimizer, learning_rate(state.step, config))
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    update_ema(state.ema, state.model, ema_decay_at(state.step, config.ema_decay))
    state.step += 1
