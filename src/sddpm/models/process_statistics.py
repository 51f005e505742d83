"""Mean and deviation of numbers that are spread over several processes."""

import torch
import torch.distributed as dist
from torch import Tensor


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


def over_processes(mean: Tensor, deviation: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Combine the per-channel statistics of all processes, differentiably.

    Squared deviations from a process's own mean are moved to the common mean before they are summed (Chan et al.,
    1979). This needs two exchanges but has no cancellation error.

    Args:
        mean: [C].
        deviation: [C], summed squared deviations from it.
        count: how many numbers each channel has; it may differ between processes.

    Returns:
        mean, deviation and count of all processes together.
    """
    total = _sum_over_processes(torch.cat([mean * count, mean.new_tensor([count])]))
    n = total[-1].detach()
    common = total[:-1] / n
    return common, _sum_over_processes(deviation + count * (mean - common).square()), n
