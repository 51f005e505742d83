"""Batch normalisation over time steps, batch and space, optionally over several processes too."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from sddpm import native
from sddpm.layouts import channels_innermost
from sddpm.models.fused_norm import BatchStatistics, batch_statistics, normalise
from sddpm.models.kernels import norm
from sddpm.models.process_statistics import over_processes
from sddpm.neurons.kernels import fused_allowed


class StepBatchNorm2d(nn.BatchNorm2d):
    """Batch norm of [T, B, C, H, W] whose statistics span T, B, H and W; `add` is added to the result.

    If `synchronized` is set and a process group exists, the statistics of a training step span all processes
    (PyTorch's own SyncBatchNorm needs CUDA). They are then those of the whole batch in one process.
    While `frozen`, a forward pass in training mode leaves the running statistics as they are.
    """

    synchronized: bool = False
    frozen: bool = False

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        if self.training and torch.is_grad_enabled() and self.fusable(x) and (add is None or _alike(x, add)):
            return normalise(x, add, self.weight, self.bias, self.statistics(x))
        out = self._normalise(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return out if add is None else out + add

    def _normalise(self, x: Tensor) -> Tensor:
        if self.training and self.spans_processes():
            return self._forward_synchronized(x)
        if self.training and self.frozen:
            mean, var = (None if s is None else s.clone() for s in (self.running_mean, self.running_var))
            return F.batch_norm(x, mean, var, self.weight, self.bias, True, 0.0, self.eps)
        return super().forward(x)

    def fusable(self, x: Tensor) -> bool:
        """Whether the native kernels can do a training step of this layer on x [T, B, C, H, W]."""
        return (
            fused_allowed()
            and self.weight is not None
            and native.unsupported_tensor(x) is None
            and channels_innermost(x)
            and x.numel() > x.shape[2]
            and self.weight.dtype == norm.wide(x.dtype)
        )

    def statistics(self, x: Tensor) -> BatchStatistics:
        """Batch statistics of a training step on `fusable` x [T, B, C, H, W]; also updates the running statistics."""
        statistics = batch_statistics(x, self.eps, shared=self.spans_processes())
        self.update_running(statistics.mean, statistics.unbiased_var)
        return statistics

    def spans_processes(self) -> bool:
        """Whether the statistics of a training step span several processes."""
        return self.synchronized and dist.is_initialized() and dist.get_world_size() > 1

    def _forward_synchronized(self, x: Tensor) -> Tensor:
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        var, mean = torch.var_mean(wide, (0, 2, 3), correction=0)
        count = wide.numel() // wide.shape[1]
        mean, deviation, n = over_processes(mean, var * count, count)
        self.update_running(mean.detach(), deviation.detach() / (n - 1))
        scale = torch.rsqrt(deviation / n + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        out = (wide - mean.view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1)
        if self.bias is not None:
            out = out + self.bias.view(1, -1, 1, 1)
        return out.to(x.dtype)

    @torch.no_grad()
    def update_running(self, mean: Tensor, unbiased_var: Tensor) -> None:
        """Update the running statistics with those of a batch, as PyTorch does."""
        if self.frozen or not self.track_running_stats or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), momentum)  # type: ignore[union-attr]
        self.running_var.lerp_(unbiased_var.to(self.running_var), momentum)  # type: ignore[union-attr]


def synchronize_batch_norm(model: nn.Module, enabled: bool = True) -> None:
    """Set whether the batch norms of `model` share their statistics across processes while training."""
    for module in model.modules():
        if isinstance(module, StepBatchNorm2d):
            module.synchronized = enabled


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Do not update the running statistics of `model`: for a forward pass that is computed a second time."""
    norms = [module for module in model.modules() if isinstance(module, StepBatchNorm2d)]
    for module in norms:
        module.frozen = True
    try:
        yield
    finally:
        for module in norms:
            module.frozen = False


def _alike(x: Tensor, add: Tensor) -> bool:
    return add.dtype == x.dtype and add.shape == x.shape and channels_innermost(add)
