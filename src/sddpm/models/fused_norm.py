"""A training step of batch norm on the CPU by native kernels: statistics, the norm, and its gradient."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from sddpm.layouts import innermost
from sddpm.models.kernels import norm
from sddpm.models.process_statistics import over_processes


@dataclass(frozen=True)
class BatchStatistics:
    """Of one training step: mean, 1 / sqrt(var + eps) and the unbiased variance (float64) [C], and the count of numbers
    per channel; `shared` says whether they span all processes."""

    mean: Tensor
    rstd: Tensor
    unbiased_var: Tensor
    count: int
    shared: bool

    def factors(self, sums: Tensor) -> Tensor:
        """The factors [2, C] for `norm.input_gradient`, from the sums [2, C] of `norm.gradient_sums`."""
        if self.shared:
            sums = sums.clone()
            dist.all_reduce(sums)
        factors = sums / self.count
        factors[1] *= self.rstd.double().square()
        return factors.to(self.mean)


@torch.no_grad()
def batch_statistics(x: Tensor, eps: float, *, shared: bool) -> BatchStatistics:
    """The statistics of x [T, B, C, H, W], channels innermost; if `shared`, over the x of all processes."""
    mean, deviation = norm.moments(x)
    count = x.numel() // x.shape[2]
    if shared:
        mean, deviation, n = over_processes(mean, deviation, count)
        count = int(n)
    rstd, dtype = torch.rsqrt(deviation / count + eps), norm.wide(x.dtype)
    return BatchStatistics(mean.to(dtype), rstd.to(dtype), deviation / (count - 1), count, shared)


def normalise(x: Tensor, add: Tensor | None, weight: Tensor, bias: Tensor, statistics: BatchStatistics) -> Tensor:
    """weight (x - mean) rstd + bias + add, with gradients through the statistics; weight and bias [C], `add` as x."""
    return _Normalise.apply(x, add, weight, bias, statistics)  # type: ignore[return-value]


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
