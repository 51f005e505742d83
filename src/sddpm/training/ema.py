"""The exponential moving average of a model: parameters AND batch-norm statistics (averaged weights do not fit the
statistics of the last weights)."""

import copy
from typing import TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


def ema_decay_at(step: int, decay: float) -> float:
    """The decay of a step (from 0): it starts at 0.1 and rises to `decay`, so that early weights lose their influence
    soon."""
    return min(decay, (1 + step) / (10 + step))


def make_ema(model: Model) -> Model:
    """A copy of `model` to hold the average: in evaluation mode, without gradients."""
    return copy.deepcopy(model).eval().requires_grad_(False)


@torch.no_grad()
def update_ema(ema: nn.Module, model: nn.Module, decay: float) -> None:
    """ema = decay * ema + (1 - decay) * model, over parameters and floating-point buffers; integer buffers are copied.

    A decay of 0 copies the model exactly.
    """
    averages, values = [], []
    for average, value in zip(ema.state_dict().values(), model.state_dict().values(), strict=True):
        if average.is_floating_point():
            averages.append(average)
            values.append(value)
        else:
            average.copy_(value)
    torch._foreach_lerp_(averages, values, 1.0 - decay)  # pyright: ignore[reportPrivateImportUsage]
