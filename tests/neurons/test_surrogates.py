"""Surrogate derivatives against closed forms written another way, in float64."""

import math

import pytest
import torch

from sddpm.errors import UserError
from sddpm.neurons import SURROGATES
from sddpm.neurons.surrogates import resolve_surrogate, spike

ALPHAS = [0.5, 1.0, 2.0, 3.7]

# name -> (derivative at u, half width of the support or None, area) for an inverse width a.
TRUTH = {
    "atan": (lambda u, a: a / (2 * (1 + math.pi**2 * a**2 * u**2 / 4)), None, lambda a: 1.0),
    "sigmoid": (lambda u, a: a / (4 * math.cosh(a * u / 2) ** 2), None, lambda a: 1.0),
    "rectangle": (lambda u, a: a if -1 < 2 * a * u < 1 else 0.0, lambda a: 0.5 / a, lambda a: 1.0),
    "triangle": (lambda u, a: max(0.0, (1 / a - abs(u)) * a), lambda a: 1 / a, lambda a: 1 / a),
    "piecewise_quadratic": (lambda u, a: a * max(0.0, (1 / a - abs(u)) * a), lambda a: 1 / a, lambda a: 1.0),
}


def derivative(name: str, alpha: float, u: torch.Tensor) -> torch.Tensor:
    u = u.clone().requires_grad_()
    return torch.autograd.grad(spike(u, name, alpha).sum(), u)[0]


def test_every_surrogate_has_a_closed_form_here():
    assert set(TRUTH) == set(SURROGATES)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("name", TRUTH)
def test_derivative_equals_the_closed_form(name, alpha):
    u = torch.linspace(-3.1, 3.1, 401, dtype=torch.float64)
    truth = torch.tensor([TRUTH[name][0](float(p), alpha) for p in u], dtype=torch.float64)
    torch.testing.assert_close(derivative(name, alpha, u), truth, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("name", TRUTH)
def test_area_and_support(name, alpha):
    _, support, area = TRUTH[name]
    u = torch.linspace(-1000.0, 1000.0, 2_000_001, dtype=torch.float64)
    bump = derivative(name, alpha, u)
    assert torch.trapezoid(bump, u).item() == pytest.approx(area(alpha), rel=5e-3)
    if support is not None:
        assert not bump[u.abs() > support(alpha)].any()
        assert (bump[u.abs() < support(alpha) - 1e-9] > 0).all()


def test_the_incoming_gradient_multiplies():
    u = torch.linspace(-1, 1, 11, dtype=torch.float64)
    for name in SURROGATES:
        leaf = u.clone().requires_grad_()
        incoming = torch.arange(11, dtype=torch.float64) - 5
        (grad,) = torch.autograd.grad(spike(leaf, name), leaf, incoming)
        torch.testing.assert_close(grad, incoming * derivative(name, SURROGATES[name].default_alpha, u))


def test_a_spike_fires_at_the_threshold():
    assert spike(torch.tensor([-1e-30, -0.0, 0.0, 1e-30])).tolist() == [0, 1, 1, 1]


def test_bad_surrogates_are_refused():
    assert resolve_surrogate("atan", None) == 2.0
    with pytest.raises(UserError, match="atan"):
        resolve_surrogate("arctan", None)
    for alpha in (0.0, -1.0, math.nan, math.inf, "2", True):
        with pytest.raises(UserError, match="must be a finite number above 0"):
            resolve_surrogate("atan", alpha)
