"""The optimal variance of a reverse step and the trajectory of least KL divergence (Bao et al., 2022, "Analytic-DPM").

Notation: a = alphas_cumprod, so x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) epsilon; h(t) = E ||epsilon(x_t, t)||^2 / d is the
second moment of the predicted noise over data and noise, and a stride goes from the noise level of t to that of s < t.
(The paper writes Gamma for h / (1 - a), and n = t + 1.)
"""

import math

import torch
from torch import Tensor


def posterior_variance(alphas_cumprod: Tensor, h: Tensor, limit: float = math.inf) -> Tensor:
    """The mean posterior variance of x_0 given x_t, E Var(x_0 | x_t) per pixel: (1 - a) / a (1 - h), float64 [N].

    Clipped to 0 .. `limit`, the bounds of theorem 2: the variance of images in [-1, 1] is at most 1.
    """
    a = alphas_cumprod.double()
    return ((1 - a) / a * (1 - h.double())).clamp(0.0, limit)


def optimal_variance(a_t: Tensor, a_s: Tensor, posterior: Tensor, forward: Tensor) -> Tensor:
    """The variance that minimises the KL divergence of the reverse step from noise level a_t to a_s (theorem 1).

    Args:
        a_t, a_s: alphas_cumprod before and after the step; a_s > a_t.
        posterior: `posterior_variance` at t.
        forward: lambda^2, the variance of q(x_s | x_t, x_0): `ancestral_variance` for DDPM, 0 for DDIM.

    Returns:
        lambda^2 + c^2 E Var(x_0 | x_t), with c the weight of x_0 in the mean of q(x_s | x_t, x_0).
    """
    weight = a_s.sqrt() - ((1 - a_s - forward).clamp(min=0.0) * a_t / (1 - a_t)).sqrt()
    return forward + weight.square() * posterior


def ancestral_variance(a_t: Tensor, a_s: Tensor) -> Tensor:
    """DDPM's lambda^2: the variance of q(x_s | x_t, x_0), (1 - a_s) / (1 - a_t) (1 - a_t / a_s)."""
    return (1 - a_s) / (1 - a_t) * (1 - a_t / a_s)


def trajectory_costs(alphas_cumprod: Tensor, posterior: Tensor) -> Tensor:
    """J[s, t] = log(optimal variance / lambda^2) of DDPM's stride from t to s, infinite unless s < t; float64 [N, N].

    Half its sum along a trajectory from N - 1 to 0, times the number of pixels, is the KL divergence to the forward
    process, up to a constant (section 4). The posterior variance is made non-decreasing in t, as it is in theory. A
    moment that was measured too high would otherwise give strides of any length at no cost.
    """
    a = alphas_cumprod.double()
    posterior = torch.cummax(posterior.double(), 0).values
    a_s, a_t = a[:, None], a[None, :]
    forward = ancestral_variance(a_t, a_s)
    ratio = optimal_variance(a_t, a_s, posterior[None, :], forward) / forward
    allowed = torch.ones(len(a), len(a), dtype=torch.bool).triu(1)
    return torch.where(allowed, ratio.log(), math.inf)


def cheapest_path(costs: Tensor, steps: int) -> list[int]:
    """The `steps` nodes from N - 1 down to 0 with the lowest total cost of strides, by dynamic programming (Watson et
    al., 2021).

    Args:
        costs: [N, N], the cost of the stride from t to s at [s, t], infinite unless s < t.
        steps: 1 to N; with one step the path is only N - 1.
    """
    last = len(costs) - 1
    if steps == 1:
        return [last]
    best = torch.full((last + 1,), math.inf, dtype=costs.dtype)
    best[0] = 0.0
    came_from = []
    for _ in range(steps - 1):  # best[t]: lowest cost of reaching t from 0 in this many strides
        best, origin = (best[:, None] + costs).min(0)
        came_from.append(origin)
    path = [last]
    for origin in reversed(came_from):
        path.append(int(origin[path[-1]]))
    return path
