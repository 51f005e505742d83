"""Batch normalisation over time steps, batch and space, optionally over several processes too."""

import torch
import torch.distributed as dist
from torch import Tensor, nn


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
    """Batch norm of [T, B, C, H, W] whose statistics span T, B, H and W.

    With `synchronized` set and a process group at hand, the statistics of a training step span all processes
    (PyTorch's own SyncBatchNorm needs CUDA). They are then those of the whole batch in one process.
    """

    synchronized: bool = False

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)
        if self.training and self.synchronized and dist.is_initialized() and dist.get_world_size() > 1:
            return self._forward_synchronized(flat).unflatten(0, x.shape[:2])
        return super().forward(flat).unflatten(0, x.shape[:2])

    def _forward_synchronized(self, x: Tensor) -> Tensor:
        # Two passes (mean, then squared deviations) cost one more exchange of C numbers, and do not cancel.
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        count = torch.tensor([float(wide.numel() // wide.shape[1])], device=x.device, dtype=wide.dtype)
        total = _sum_over_processes(torch.cat([wide.sum((0, 2, 3)), count]))
        n = total[-1].detach()
        mean = total[:-1] / n
        centred = wide - mean.view(1, -1, 1, 1)
        var = _sum_over_processes(centred.square().sum((0, 2, 3))) / n
        self._update_running(mean.detach(), (var * n / (n - 1)).detach())
        scale = torch.rsqrt(var + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        out = centred * scale.view(1, -1, 1, 1)
        if self.bias is not None:
            out = out + self.bias.view(1, -1, 1, 1)
        return out.to(x.dtype)

    @torch.no_grad()
    def _update_running(self, mean: Tensor, unbiased_var: Tensor) -> None:
        if not self.track_running_stats or self.num_batches_tracked is None:
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
