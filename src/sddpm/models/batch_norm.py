"""Batch normalisation over time steps, batch and space, optionally over several processes too."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sddpm import native
from sddpm.models.kernels import norm
from sddpm.neurons.kernels import fused_allowed


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; every process's loss depends on every part, so gradients are summed."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[override]
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def _sum_over_processes(x: Tensor) -> Tensor:
    return _SumOverProcesses.apply(x)  # type: ignore[return-value]


class StepBatchNorm2d(nn.BatchNorm2d):
    """Batch norm of [T, B, C, H, W] whose statistics span T, B, H and W; `add` is added to the result.

    With `synchronized` set and a process group at hand, the statistics of a training step span all processes
    (PyTorch's own SyncBatchNorm needs CUDA). They are then those of the whole batch in one process.
    While `frozen`, a forward pass in training mode leaves the running statistics as they are.
    """

    synchronized: bool = False
    frozen: bool = False

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        if self.training and torch.is_grad_enabled() and fusable(self, x) and (add is None or _alike(x, add)):
            return _Normalise.apply(x, add, self.weight, self.bias, batch_statistics(self, x))  # type: ignore[return-value]
        out = self._normalise(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return out if add is None else out + add

    def _normalise(self, x: Tensor) -> Tensor:
        if self.training and self.spans_processes():
            return self._forward_synchronized(x)
        if self.training and self.frozen:
            mean, var = (None if s is None else s.clone() for s in (self.running_mean, self.running_var))
            return F.batch_norm(x, mean, var, self.weight, self.bias, True, 0.0, self.eps)
        return super().forward(x)

    def spans_processes(self) -> bool:
        """Whether the statistics of a training step are those of several processes."""
        return self.synchronized and dist.is_initialized() and dist.get_world_size() > 1

    def _forward_synchronized(self, x: Tensor) -> Tensor:
        # Two passes (mean, then squared deviations) cost one more exchange of C numbers, and do not cancel.
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        count = torch.tensor([float(wide.numel() // wide.shape[1])], device=x.device, dtype=wide.dtype)
        total = _sum_over_processes(torch.cat([wide.sum((0, 2, 3)), count]))
        n = total[-1].detach()
        mean = total[:-1] / n
        centred = wide - mean.view(1, -1, 1, 1)
        var = _sum_over_processes(centred.square().sum((0, 2, 3))) / n
        self.update_running(mean.detach(), (var * n / (n - 1)).detach())
        scale = torch.rsqrt(var + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        out = centred * scale.view(1, -1, 1, 1)
        if self.bias is not None:
            out = out + self.bias.view(1, -1, 1, 1)
        return out.to(x.dtype)

    @torch.no_grad()
    def update_running(self, mean: Tensor, unbiased_var: Tensor) -> None:
        """Move the running statistics towards those of a batch, as PyTorch does."""
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
    """Leave the running statistics of `model` as they are: for a forward pass that is done a second time."""
    norms = [module for module in model.modules() if isinstance(module, StepBatchNorm2d)]
    for module in norms:
        module.frozen = True
    try:
        yield
    finally:
        for module in norms:
            module.frozen = False


# The fused path on the CPU


@dataclass(frozen=True)
class BatchStatistics:
    """Of one training step: mean and 1 / sqrt(var + eps) [C], and over how many numbers a channel; `shared` among
    processes or not."""

    mean: Tensor
    rstd: Tensor
    count: float
    shared: bool

    def factors(self, sums: Tensor) -> Tensor:
        """[2, C] of `norm.input_gradient`, from the sums [2, C] of `norm.gradient_sums`."""
        if self.shared:
            sums = sums.clone()
            dist.all_reduce(sums)
        factors = sums / self.count
        factors[1] *= self.rstd.double().square()
        return factors.to(self.mean)


def fusable(module: StepBatchNorm2d, x: Tensor) -> bool:
    """Whether the native kernels can do a training step of batch norm on x [T, B, C, H, W]."""
    return (
        fused_allowed()
        and module.weight is not None
        and native.unsupported_tensor(x) is None
        and norm.channels_innermost(x)
        and x.numel() > x.shape[2]
        and module.weight.dtype == norm.wide(x.dtype)
    )


def _alike(x: Tensor, add: Tensor) -> bool:
    return add.dtype == x.dtype and add.shape == x.shape and norm.channels_innermost(add)


@torch.no_grad()
def batch_statistics(module: StepBatchNorm2d, x: Tensor) -> BatchStatistics:
    """The statistics of x [T, B, C, H, W] and of all processes' x; the running ones move towards them."""
    mean, deviation = norm.moments(x)
    count = float(x.numel() // x.shape[2])
    shared = module.spans_processes()
    if shared:
        total = torch.cat([mean * count, mean.new_tensor([count])])
        dist.all_reduce(total)
        common = total[:-1] / total[-1]
        deviation = deviation + count * (mean - common).square()
        dist.all_reduce(deviation)
        mean, count = common, float(total[-1])
    module.update_running(mean, deviation / (count - 1))
    rstd = torch.rsqrt(deviation / count + module.eps)
    dtype = norm.wide(x.dtype)
    return BatchStatistics(mean.to(dtype), rstd.to(dtype), count, shared)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, x: Tensor, add: Tensor | None, weight: Tensor, bias: Tensor, statistics: BatchStatistics
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.statistics = statistics
        scale = weight * statistics.rstd
        return norm.apply(x, scale, bias - statistics.mean * scale, add)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        x, weight = ctx.saved_tensors
        statistics: BatchStatistics = ctx.statistics
        grad = innermost(grad)
        sums = norm.gradient_sums(x, statistics.mean, grad)
        grad_x = torch.empty_like(x)
        norm.input_gradient(x, statistics.mean, weight * statistics.rstd, statistics.factors(sums), grad, grad_x)
        grad_bias, grad_weight = sums[0].to(weight), (sums[1] * statistics.rstd).to(weight)
        return grad_x, grad if ctx.needs_input_grad[1] else None, grad_weight, grad_bias, None


def innermost(x: Tensor) -> Tensor:
    """x [T, B, C, H, W] as it is, or a copy, with C innermost in memory."""
    return x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
