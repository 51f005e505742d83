"""Analytic-DPM against what is known of Gaussians and their mixtures, and dynamic programming against brute force."""

from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from diffusers.utils import logging
from scipy.special import expit
from scipy.stats import norm

from sddpm.diffusion.analytic import AnalyticDPMScheduler
from sddpm.diffusion.moments import Moments, MomentSums
from sddpm.diffusion.reverse_variance import (
    ancestral_variance,
    cheapest_path,
    optimal_variance,
    posterior_variance,
    trajectory_costs,
)
from sddpm.diffusion.schedule import NoiseSchedule
from sddpm.diffusion.solvers import SOLVERS, make_scheduler, switch_solver
from sddpm.diffusion.timesteps import even_trajectory
from sddpm.errors import UserError
from tests.helpers import published_updates as published

A = NoiseSchedule().alphas_cumprod
STRIDES = [(999, 0), (999, 998), (500, 100), (40, 39), (1, 0)]


class Mixture:
    """Half of the data N(m, s^2), half N(-m, s^2); all by quadrature over x_t."""

    def __init__(self, m=0.6, s=0.2):
        self.m, self.s = m, s
        self.x = np.linspace(-8, 8, 20_001)

    def integrate(self, values, t):
        """E values(x_t), values on the grid."""
        return np.sum(values * self.density(t)) * (self.x[1] - self.x[0])

    def std(self, t):
        return (A[t].item() * self.s**2 + 1 - A[t].item()) ** 0.5

    def components(self, t):
        """Logarithms of the density of either half."""
        centre = A[t].item() ** 0.5 * self.m
        return [norm.logpdf(self.x, sign * centre, self.std(t)) + np.log(0.5) for sign in (1, -1)]

    def density(self, t):
        return np.exp(np.logaddexp(*self.components(t)))

    def h(self, t):
        score = np.gradient(np.logaddexp(*self.components(t)), self.x)
        return (1 - A[t].item()) * self.integrate(score**2, t)

    def posterior(self, t):
        return (1 - A[t].item()) / A[t].item() * (1 - self.h(t))

    def conditional_variance(self, s, t):
        """E Var(x_s | x_t) of the noising process: each half's own variance, and that between their means."""
        a_s, a_t = A[s].item(), A[t].item()
        covariance = (a_t / a_s) ** 0.5 * self.std(s) ** 2
        within = self.std(s) ** 2 - covariance**2 / self.std(t) ** 2
        plus, minus = self.components(t)
        share = expit(plus - minus)
        slope = covariance / self.std(t) ** 2
        apart = 2 * self.m * (a_s**0.5 - slope * a_t**0.5)
        return within + self.integrate(share * (1 - share) * apart**2, t)


def variance_for(h, s, t, form):
    forward = ancestral_variance(A[t], A[s]) if form == "ddpm" else torch.zeros((), dtype=torch.float64)
    posterior = posterior_variance(A[t], torch.tensor(h, dtype=torch.float64))
    return optimal_variance(A[t], A[s], posterior, forward).item()


@pytest.mark.parametrize(("t", "s"), STRIDES)
def test_variance_on_gaussian_data(s, t):
    """Of jointly Gaussian (x_s, x_t): the conditional variance. In DDIM both hold the same noise."""
    data = published.Gaussian(A, mu=0.3, s=0.5)
    a_s, a_t = A[s].item(), A[t].item()
    for form, covariance in {
        "ddpm": (a_t / a_s) ** 0.5 * data.std(s) ** 2,
        "ddim": (a_s * a_t) ** 0.5 * data.s**2 + ((1 - a_s) * (1 - a_t)) ** 0.5,
    }.items():
        expected = data.std(s) ** 2 - covariance**2 / data.std(t) ** 2
        assert variance_for(data.h(t), s, t, form) == pytest.approx(expected, rel=1e-6, abs=1e-12), form


@pytest.mark.parametrize(("t", "s"), STRIDES)
def test_variance_on_two_gaussians(s, t):
    data = Mixture()
    assert variance_for(data.h(t), s, t, "ddpm") == pytest.approx(data.conditional_variance(s, t), rel=1e-4)


def test_it_lies_between_the_two_handmade_variances():
    """beta-tilde is right for data that are a point, beta for data that are unit noise."""
    for t, s in STRIDES:
        low, high = ancestral_variance(A[t], A[s]).item(), 1 - (A[t] / A[s]).item()
        assert variance_for(1.0, s, t, "ddpm") == pytest.approx(low)
        assert variance_for(1 - A[t].item(), s, t, "ddpm") == pytest.approx(high)
        assert low < variance_for(Mixture().h(t), s, t, "ddpm") < high


def test_bounds():
    h = torch.tensor([1.5, 0.0])
    assert posterior_variance(torch.tensor([0.9, 0.1]), h, 1.0).tolist() == [0.0, 1.0]


def moments_of(data):
    return Moments([float(data.h(t)) for t in range(1000)], [0.0] * 1000, 1).to_dict()


@pytest.mark.parametrize("solver", ["analytic-dpm", "analytic-dpm-ot"])
@pytest.mark.parametrize("n", [3, 5, 10])
def test_few_steps_keep_the_deviation_of_gaussian_data(n, solver):
    """Every pixel is a sample. DDPM with its fixed variance is far off for so few steps."""
    data = published.Gaussian(A, mu=0.0, s=0.25)
    scheduler = make_scheduler(solver, clip_sample=False, moments=moments_of(data))
    scheduler.set_timesteps(n)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, 200, 200, generator=generator, dtype=torch.float64)
    for t in scheduler.timesteps.tolist():
        x = scheduler.step(data.eps(x, t), t, x, generator=generator).prev_sample
    error = abs(x.std().item() / 0.25 - 1)
    assert error < 4 / (2 * x.numel()) ** 0.5 + 1e-3
    ts = [999] if n == 1 else even_trajectory(n, 1000)
    assert abs(published.ddpm_std(A.numpy(), ts, data) / 0.25 - 1) > 5 * error


@pytest.mark.parametrize("data", [published.Gaussian(A, mu=0.3, s=0.5)])
def test_on_gaussian_data_every_trajectory_costs_the_same(data):
    """The terms are the information that each stride loses, I(x_0; x_s) - I(x_0; x_t), in nats a pixel."""
    h = torch.tensor([data.h(t) for t in range(1000)])
    costs = trajectory_costs(A, posterior_variance(A, h))

    def information(t):
        return 0.5 * np.log(data.std(t) ** 2 / (1 - A[t].item()))

    for path in ([999, 0], [999, 500, 0], [999, 998, 17, 3, 0], list(range(999, -1, -1))):
        total = sum(costs[s, t].item() for t, s in pairwise(path)) / 2
        assert total == pytest.approx(information(0) - information(999), rel=1e-5)


def mixture_posterior(some):
    """Posterior variance of the mixture at some time steps, and on lines between them."""
    return torch.tensor(np.interp(np.arange(1000), some, [Mixture().posterior(t) for t in some]))


def test_costs_are_those_of_the_variances():
    data = Mixture()
    costs = trajectory_costs(A, mixture_posterior([0, 39, 40, 100, 500, 999]))
    for t, s in [(500, 100), (100, 40), (40, 39)]:
        expected = np.log(data.conditional_variance(s, t) / ancestral_variance(A[t], A[s]).item())
        assert costs[s, t].item() == pytest.approx(expected, rel=1e-3)
    assert costs[5, 5] == costs[6, 5] == np.inf


@pytest.mark.parametrize("steps", range(1, 9))
def test_dynamic_programming_against_brute_force(steps):
    generator = torch.Generator().manual_seed(steps)
    costs = torch.rand(8, 8, generator=generator, dtype=torch.float64)
    costs[~torch.ones(8, 8, dtype=torch.bool).triu(1)] = np.inf

    def cost(path):
        return sum(costs[s, t].item() for t, s in pairwise(path))

    path = cheapest_path(costs, steps)
    if steps == 1:
        assert path == [7]
        return
    every = [[7, *reversed(between), 0] for between in combinations(range(1, 7), steps - 2)]
    assert path in every
    assert cost(path) == pytest.approx(min(map(cost, every)))


@pytest.mark.parametrize("n", [2, 5, 10, 50, 333])
def test_the_optimal_trajectory_costs_less_than_the_even_one(n):
    costs = trajectory_costs(A, mixture_posterior([*range(0, 60, 5), *range(60, 1000, 50), 999]))
    best, even = cheapest_path(costs, n), even_trajectory(n, 1000)
    totals = [sum(costs[s, t].item() for t, s in pairwise(p)) for p in (best, even)]
    assert len(set(best)) == n and best[0] == 999 and best[-1] == 0
    assert totals[0] < totals[1] if n > 2 else totals[0] == totals[1]


def test_a_moment_measured_too_high_opens_no_short_cut():
    h = torch.tensor([published.Gaussian(A, s=0.5).h(t) for t in range(1000)])
    h[700] = 1.01
    costs = trajectory_costs(A, posterior_variance(A, h, 1.0))
    assert costs[0, 700] > 0.9 * costs[0, 699]


def test_the_even_trajectory():
    assert even_trajectory(1, 1000) == [999]
    assert even_trajectory(2, 1000) == [999, 0]
    assert even_trajectory(5, 1000) == [999, 749, 500, 250, 0]
    for n in range(2, 101):
        assert len(set(even_trajectory(n, 100))) == n


@pytest.mark.parametrize(
    ("form", "schedule", "levels"), [("dpm", "linear", 2), ("dpm", "cosine", 1), ("ddim", "linear", 1)]
)
def test_the_noise_that_stays_is_clipped_to_grey_levels(form, schedule, levels):
    """A wild guess of h lets every other step add as much as images can vary."""
    moments = Moments([1e-3] * 1000, [0.0] * 1000, 1).to_dict()
    scheduler = make_scheduler(f"analytic-{form}", beta_schedule=schedule, moments=moments)
    scheduler.set_timesteps(5)
    added = []
    for t in scheduler.timesteps.tolist():
        x = torch.zeros(1, 1, 300, 300)
        step = scheduler.step(torch.zeros_like(x), t, x, generator=torch.Generator().manual_seed(t))
        added.append(step.prev_sample.abs().mean().item() * 255 / 2)
    assert added[-2] == pytest.approx(levels, rel=0.01)
    assert added[-1] == 0
    assert min(added[:-2]) > 2 * levels


@pytest.mark.parametrize("pieces", [1, 7])
def test_moments_of_samples_with_the_exact_noise(pieces):
    """Within four standard errors of the truth, and surer than without the known noise where that is most of x_t."""
    data, ts = published.Gaussian(A, mu=0.3, s=0.5), [0, 30, 300, 999]
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 350, 64, generator=generator, dtype=torch.float64)
    x0 = 0.3 + 0.5 * x0
    answers = torch.stack([data.eps(A[t].sqrt() * x0 + (1 - A[t]).sqrt() * noise, t) for t in ts])
    sums = MomentSums(len(ts))
    for part in range(pieces):
        size = len(x0) // pieces
        rows = slice(part * size, (part + 1) * size)
        sums.add(answers[:, rows].square().mean(2), noise[rows].square().mean(1))
    moments = sums.result()
    assert moments.samples == 350
    truth = np.array([data.h(t) for t in ts])
    z = (np.array(moments.h) - truth) / np.array(moments.standard_error)
    assert np.abs(z).max() < 4
    plain = (answers.square().mean(2).std(1) / 350**0.5).numpy()
    assert (np.array(moments.standard_error) <= plain * 1.01).all()
    assert moments.standard_error[-1] < plain[-1] / 50


def test_standard_errors_are_the_spread_of_repeated_measurements():
    data, t = published.Gaussian(A, s=0.5), 200
    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in range(300):
        x0, noise = torch.randn(2, 20, 16, generator=generator, dtype=torch.float64)
        answer = data.eps(A[t].sqrt() * 0.5 * x0 + (1 - A[t]).sqrt() * noise + A[t].sqrt() * data.mu, t)
        sums = MomentSums(1)
        sums.add(answer.square().mean(1)[None], noise.square().mean(1))
        found.append(sums.result())
    spread = np.std([m.h[0] for m in found])
    assert np.mean([m.standard_error[0] for m in found]) == pytest.approx(spread, rel=0.15)


def test_missing_and_damaged_moments_are_refused_in_a_line():
    with pytest.raises(UserError, match="run `sddpm moments MODEL` once"):
        make_scheduler("analytic-dpm").set_timesteps(10)
    good = Moments([0.5] * 1000, [0.1] * 1000, 9).to_dict()
    for damage in ({"h": [0.5] * 9}, {"h": [0.0] * 1000}, {"h": "x"}, {"h": [float("nan")] * 1000}, {"extra": 1}):
        with pytest.raises(UserError, match="measure them again"):
            make_scheduler("analytic-dpm", moments=good | damage).set_timesteps(10)
    with pytest.raises(UserError, match="at least 3 images"):
        MomentSums(2).result()


def test_what_cannot_be_is_refused():
    for options in ({"form": "sde"}, {"trajectory": "odd"}, {"beta_schedule": "sigmoid"}):
        with pytest.raises(UserError):
            AnalyticDPMScheduler(**options)
    with pytest.raises(UserError, match="optimal trajectory"):
        AnalyticDPMScheduler(form="ddim", trajectory="optimal")


@pytest.mark.parametrize("solver", SOLVERS)
def test_moments_stay_with_any_scheduler_without_a_warning(solver, tmp_path, capfd):
    moments = Moments([0.5] * 1000, [0.1] * 1000, 9).to_dict()
    logging.enable_default_handler()
    make_scheduler(solver, moments=moments).save_pretrained(tmp_path)
    loaded = type(make_scheduler(solver)).from_pretrained(tmp_path)
    assert loaded.config.moments == moments
    assert switch_solver(switch_solver(loaded, "ddim"), "analytic-dpm").config.moments == moments
    assert "not expected" not in "".join(capfd.readouterr())
