"""The activation that an integrate-and-fire neuron can replace after training: a ReLU with a learned ceiling and L
levels above 0.

    Q(x) = s/L clip(floor(L x / s + 1/2), 0, L)

An IF neuron with threshold s, initial membrane s/2 and soft reset that receives x at each of L time steps fires
L Q(x) / s times (Bu et al., ICLR 2022, arXiv 2303.04347; Hu et al., Fast-SNN, 2023, arXiv 2305.19868).
"""

import torch
from torch import Tensor, nn

from sddpm.errors import UserError

MOST_LEVELS = 255


class _Quantize(torch.autograd.Function):
    """Straight-through gradient for the rounding; s is learned as in LSQ (Esser et al., ICLR 2020, arXiv 1902.08153):

    dQ/dx = 1 for 0 < x < s, else 0;    dQ/ds = (Q - x) / s for 0 < x < s, 1 for x >= s, else 0.

    The gradient of s, a sum over many numbers, is multiplied by LSQ's 1 / sqrt(numbers of an image x L).
    """

    @staticmethod
    def forward(ctx, x: Tensor, s: Tensor, levels: int) -> Tensor:
        q = quantize(x, s, levels)
        ctx.save_for_backward(x, s, q)
        ctx.scale = (x[0, 0].numel() * levels) ** -0.5
        return q

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        x, s, q = ctx.saved_tensors
        grad_x = grad * ((x > 0) & (x < s))
        return grad_x, ((grad * q).sum() - (grad_x * x).sum()) / s * ctx.scale, None  # Q / s is 1 for x >= s


def quantize(x: Tensor, s: Tensor | float, levels: int) -> Tensor:
    """Q(x) = s/L clip(floor(L x / s + 1/2), 0, L) with L = `levels`, of any shape."""
    return torch.floor(x * (levels / s) + 0.5).clamp(0, levels) * (s / levels)


class QuantizedReLU(nn.Module):
    """Q of [T, B, ...], with the ceiling s (`step`, above 0) learned for the whole layer; it starts at 2.

    Args:
        bits: b, 1 to 8.
        levels: L, 1 to 255; None for 2^b - 1.

    Raises:
        UserError: another number of bits or levels.
    """

    def __init__(self, bits: int, levels: int | None = None):
        super().__init__()
        if type(bits) is not int or not 1 <= bits <= 8:
            raise UserError(f"activation_bits must be a whole number from 1 to 8, got {bits!r}")
        if levels is not None and (type(levels) is not int or not 1 <= levels <= MOST_LEVELS):
            raise UserError(f"activation_levels must be a whole number from 1 to {MOST_LEVELS}, got {levels!r}")
        self.levels = 2**bits - 1 if levels is None else levels
        self.log_step = nn.Parameter(torch.tensor(2.0).log())  # keeps the learned step positive

    @property
    def step(self) -> Tensor:
        """s, []."""
        return self.log_step.exp()

    def forward(self, x: Tensor) -> Tensor:
        wide = x if x.dtype == torch.float64 else x.float()
        return _Quantize.apply(wide, self.step, self.levels).to(x.dtype)  # type: ignore[union-attr]

    def extra_repr(self) -> str:
        return f"levels={self.levels}, step={self.step.item():g}"
