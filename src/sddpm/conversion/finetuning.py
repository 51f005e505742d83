"""Fine-tuning after a conversion, block by block: each learns to reproduce the output of the ANN's block.

As in Fast-SNN (Hu et al., 2023, arXiv 2305.19868) a block receives the spikes of the blocks before it, including their
errors, and learns only from its own error. Here all blocks learn at the same time: the input of a block has no
gradient.
"""

import math
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from sddpm.conversion.ann_errors import outputs
from sddpm.errors import UserError
from sddpm.models import SpikingUNet2DModel
from sddpm.models.blocks import SpikingDownsample, SpikingEncoder, SpikingResBlock, SpikingUpsample
from sddpm.models.readout import PureSpikingReadout

BLOCKS = (SpikingEncoder, SpikingResBlock, SpikingDownsample, SpikingUpsample, PureSpikingReadout)


def finetune_blocks(
    ann: SpikingUNet2DModel,
    spiking: SpikingUNet2DModel,
    batches: Iterable[tuple[Tensor, ...]],
    *,
    steps: int,
    lr: float = 3e-4,
    callback: Callable[[int, float], None] | None = None,
) -> None:
    """Train the weights of `spiking` in place so that each block's mean over T approaches the output of the `ann`
    block.

    Trained are convolutions, gains and offsets of batch norms and projections of the time embedding (Adam, with cosine
    decay of the learning rate). Thresholds, batch-norm statistics and the time embedding do not change.

    Args:
        ann: a network with quantised activations, in evaluation mode.
        spiking: the result of `convert_ann`, in evaluation mode.
        batches: x_t [B, C, H, W], t [B] and, for a model with classes, labels [B]; one per step, at least `steps` of
            them.
        steps: number of steps.
        lr: learning rate of the first step.
        callback: called after each step with its number (from 1) and its loss: the mean over blocks of
            |mean over T - target|^2 / |target|^2.

    Raises:
        UserError: a loss that is not finite.
    """
    names = [name for name, module in spiking.named_modules() if isinstance(module, BLOCKS)]
    blocks = [spiking.get_submodule(name) for name in names]
    learned = [parameter for block in blocks for parameter in block.parameters()]
    optimizer = torch.optim.Adam(learned, lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 0.5 + 0.5 * math.cos(math.pi * n / steps))
    with ExitStack() as stack:
        for block in blocks:
            stack.callback(block.register_forward_pre_hook(_cut_gradient).remove)
        wanted, got = stack.enter_context(outputs(ann, names)), stack.enter_context(outputs(spiking, names))
        for step, batch in zip(range(1, steps + 1), batches, strict=False):
            with torch.no_grad():
                ann(*batch)
            spiking(*batch)
            loss = torch.stack([_error(got[name], wanted[name]) for name in names]).mean()
            if not loss.isfinite():
                raise UserError(
                    f"the loss of fine-tuning is not finite at step {step}: try a learning rate below {lr:g}"
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if callback is not None:
                callback(step, loss.item())
    spiking.zero_grad(set_to_none=True)


def _cut_gradient(_block: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x.detach() for x in inputs)


def _error(got: Tensor, wanted: Tensor) -> Tensor:
    """The relative error of a block [T, B, ...] against [1, B, ...], or of the readouts [B, ...]."""
    if got.dim() == wanted.dim() == 5:
        got, wanted = got.mean(0), wanted[0]
    return (got - wanted).square().mean() / wanted.square().mean().clamp(min=1e-12)
