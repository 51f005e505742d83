"""Muon: orthogonalised momentum, for the weights of convolutions as matrices [out, in k k].

Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/. The learning rate is scaled as in Liu et al., 2025,
"Muon is Scalable for LLM Training", arXiv 2502.16982, so that AdamW's learning rate fits. torch.optim.Muon refuses
weights of four dimensions, and computes its matrix products in bfloat16, which is slow on most CPUs.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic with a steep slope at 0: five iterations suffice
ROUNDS = 5
MOMENTUM = 0.95


def orthogonalized(matrix: Tensor) -> Tensor:
    """U f(S) V^T of a matrix U S V^T, by Newton-Schulz iterations in the precision of the matrix. f is about 1 (0.7 to
    1.2) where S is not tiny; the singular values are first divided by the Frobenius norm."""
    a, b, c = COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / wide.norm().clamp(min=1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide is matrix else x.T


class Muon(torch.optim.Optimizer):
    """theta = (1 - lr decay) theta - 0.2 sqrt(max(m, n)) lr O, with O the orthogonalised Nesterov momentum, [m, n].

    Each entry then moves about as far as AdamW would move it (a root mean square of 0.2 lr).

    Args:
        parameters: weights of two dimensions or more, or groups of them; all dimensions but the first are flattened.
        lr, weight_decay: as in AdamW.
    """

    def __init__(self, parameters: Iterable[Any], lr: float, weight_decay: float = 0.0):
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group["lr"], group["weight_decay"])

    def _move(self, parameter: Tensor, gradient: Tensor, lr: float, weight_decay: float) -> None:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum = state["momentum_buffer"].lerp_(gradient, 1.0 - MOMENTUM)
        direction = orthogonalized(gradient.lerp(momentum, MOMENTUM).flatten(1))
        parameter.mul_(1.0 - lr * weight_decay)
        parameter.add_(direction.view_as(parameter), alpha=-0.2 * max(direction.shape) ** 0.5 * lr)


class Together:
    """Several optimisers of different parameters used as one: joined param_groups and state."""

    def __init__(self, *parts: torch.optim.Optimizer):
        self.parts = parts
        self.param_groups: list[dict[str, Any]] = [group for part in parts for group in part.param_groups]
        self.state = parts[0].state
        for part in parts[1:]:
            part.state = self.state

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)
