"""Surrogate gradients: replacements for the derivative of a spike in the backward pass (Neftci et al., 2019).

A spike is the Heaviside step of u = h - v_threshold, with s = 1 at u = 0. Its derivative is replaced by a bump around
u = 0 whose inverse width is `alpha`: the larger alpha, the narrower the bump. Formulas and the order of arithmetic are
spikingjelly's where the names agree, so that gradients are bit-identical.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sddpm.errors import UserError
from sddpm.registry import register, registered


def atan_vjp(grad: Tensor, u: Tensor, alpha: float) -> Tensor:
    """alpha/2 / (1 + (pi/2 alpha u)^2): area 1, full width at half maximum 4/(pi alpha). SDDPM uses alpha = 2."""
    half = alpha / 2
    scaled = math.pi * half * u
    return half / (1 + scaled * scaled) * grad


def sigmoid_vjp(grad: Tensor, u: Tensor, alpha: float) -> Tensor:
    """alpha s (1 - s), s = sigmoid(alpha u): area 1, peak alpha/4."""
    s = (u * alpha).sigmoid_()
    if u.dtype == torch.float64:  # spikingjelly 2 has another order of multiplications in float64
        return grad * (1.0 - s) * s * alpha
    return grad * ((1.0 - s) * s * alpha)


def rectangle_vjp(grad: Tensor, u: Tensor, alpha: float) -> Tensor:
    """alpha where |u| < 1/(2 alpha): area 1, full width a = 1/alpha (SDDPM's appendix; spikingjelly's Rect)."""
    return alpha * (u.abs() < 0.5 / alpha).to(u) * grad


def triangle_vjp(grad: Tensor, u: Tensor, alpha: float) -> Tensor:
    """max(0, 1 - alpha |u|): peak 1, area 1/alpha, zero from |u| = 1/alpha on (FSDDIM)."""
    return (1 - alpha * u.abs()).clamp_(min=0) * grad


def piecewise_quadratic_vjp(grad: Tensor, u: Tensor, alpha: float) -> Tensor:
    """max(0, alpha - alpha^2 |u|): the triangle with area 1 and peak alpha (spikingjelly's PiecewiseQuadratic)."""
    size = u.abs()
    return (grad * (-(alpha * alpha) * size + alpha)).masked_fill_(size > (1 / alpha), 0)  # ** may round otherwise


@dataclass(frozen=True)
class Surrogate:
    """A named bump: `vjp(grad, u, alpha)` multiplies an incoming gradient with the surrogate derivative at u."""

    vjp: Callable[[Tensor, Tensor, float], Tensor]
    default_alpha: float
    description: str = ""


SURROGATES: dict[str, Surrogate] = {}


def _check_alpha(what: str, alpha: object) -> None:
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < math.inf:
        raise UserError(f"{what} must be a finite number above 0, got {alpha!r}")


def register_surrogate(
    name: str, vjp: Callable[[Tensor, Tensor, float], Tensor], default_alpha: float, *, description: str = ""
) -> None:
    """Add a surrogate gradient, for all neurons: configs, models and checkpoints can then name it.

    The fused kernels do not support it: layers that use it are differentiated by PyTorch.

    Args:
        name: a new one, e.g. "gaussian".
        vjp: (grad, u, alpha) -> the incoming gradient times the surrogate's derivative at u = h - v_threshold, all of
            one shape; `u` must not be changed.
        default_alpha: inverse width if none is given, above 0.
        description: one line, for help texts.

    Raises:
        UserError: an invalid name, one that is taken, or an alpha that is not a finite number above 0.
    """
    if not callable(vjp):
        raise UserError(f"surrogate {name!r} needs a function (grad, u, alpha) -> gradient, not {vjp!r}")
    _check_alpha(f"default_alpha of surrogate {name!r}", default_alpha)
    register(SURROGATES, "surrogate", name, Surrogate(vjp, float(default_alpha), description))


register_surrogate("atan", atan_vjp, 2.0, description="derivative of the arc tangent, with heavy tails; SDDPM's")
register_surrogate("sigmoid", sigmoid_vjp, 4.0, description="derivative of the logistic function")
register_surrogate("rectangle", rectangle_vjp, 1.0, description="alpha within 1 / (2 alpha) of the threshold")
register_surrogate("triangle", triangle_vjp, 1.0, description="peak 1, zero from 1 / alpha on; FSDDIM")
register_surrogate(
    "piecewise_quadratic", piecewise_quadratic_vjp, 1.0, description="the triangle with area 1 and peak alpha"
)


def resolve_surrogate(name: str, alpha: float | None) -> float:
    """The alpha to use: the surrogate's default for None. Raises `UserError` for an unknown name, or an alpha that is
    not a finite number above 0."""
    surrogate = registered(SURROGATES, "surrogate", name)
    if alpha is None:
        return surrogate.default_alpha
    _check_alpha("surrogate_alpha, the inverse width,", alpha)
    return float(alpha)


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u: Tensor, name: str, alpha: float) -> Tensor:
        ctx.save_for_backward(u)
        ctx.surrogate = name, alpha
        return (u >= 0).to(u)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        (u,) = ctx.saved_tensors
        name, alpha = ctx.surrogate
        return SURROGATES[name].vjp(grad, u, alpha), None, None


def spike(u: Tensor, surrogate: str = "atan", alpha: float | None = None) -> Tensor:
    """Spikes (0 or 1, shape and dtype of u) of u = h - v_threshold, differentiable by the named surrogate."""
    return _Spike.apply(u, surrogate, resolve_surrogate(surrogate, alpha))
