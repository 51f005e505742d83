"""Densities of noise levels against their closed forms, drawn by seed and step alone."""

import numpy as np
import pytest
import torch
from scipy import stats

import sddpm
from sddpm.diffusion.density import DENSITIES, register_density
from sddpm.diffusion.schedule import NoiseSchedule
from sddpm.errors import UserError

DRAWN = 200_000


def drawn(schedule, *density, seed=0):
    return schedule.draw_timesteps(DRAWN, torch.Generator().manual_seed(seed), *density)


def levels(schedule, t):
    """log sigma and the angle of time steps."""
    a = schedule.alphas_cumprod[t].numpy()
    return np.log((1 - a) / a) / 2, np.arccos(a**0.5)


@pytest.mark.parametrize("beta_schedule", ["linear", "cosine"])
@pytest.mark.parametrize(("mean", "width"), [(-1.2, 1.2), (-0.4, 1.0), (0.5, 0.7)])
def test_log_sigma_is_normal(beta_schedule, mean, width):
    """By the Kolmogorov-Smirnov distance to the closed form: 1.63 / sqrt(n) at one percent, and half of the largest
    cell, since t is a whole number."""
    schedule = NoiseSchedule(beta_schedule=beta_schedule)
    density = schedule.density("log-normal", mean, width)
    log_sigma, _ = levels(schedule, drawn(schedule, "log-normal", mean, width))
    low, high = levels(schedule, torch.tensor([0, 999]))[0]
    cut = stats.truncnorm((low - mean) / width, (high - mean) / width, mean, width)  # sigma ends where the table does
    distance = stats.kstest(log_sigma, cut.cdf).statistic
    assert distance < 1.63 / DRAWN**0.5 + density.max()


def test_the_default_is_that_of_edm():
    schedule = NoiseSchedule()
    assert torch.equal(schedule.density("log-normal"), schedule.density("log-normal", -1.2, 1.2))


@pytest.mark.parametrize("beta_schedule", ["linear", "cosine"])
def test_angles_are_uniform(beta_schedule):
    schedule = NoiseSchedule(beta_schedule=beta_schedule)
    _, angles = levels(schedule, drawn(schedule, "angle"))
    low, high = levels(schedule, torch.tensor([0, 999]))[1]
    distance = stats.kstest(angles, stats.uniform(low, high - low).cdf).statistic
    assert distance < 1.63 / DRAWN**0.5 + schedule.density("angle").max()


def test_over_the_cosine_schedule_the_angle_is_nearly_the_time_step():
    """alphas_cumprod = cos^2 of an angle that grows evenly (Nichol & Dhariwal, 2021, eq. 17), but at its ends."""
    density = NoiseSchedule(beta_schedule="cosine").density("angle")
    assert density[100:900] * 1000 == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("name", DENSITIES)
def test_draws_follow_the_probabilities(name):
    schedule = NoiseSchedule(num_train_timesteps=20)
    probabilities = schedule.density(name)
    assert probabilities.sum() == pytest.approx(1.0) and probabilities.shape == (20,)
    counts = torch.bincount(drawn(schedule, name), minlength=20)
    assert stats.chisquare(counts, probabilities * DRAWN).pvalue > 0.001


def test_uniform_draws_are_the_bits_they_always_were():
    expected = torch.randint(1000, (DRAWN,), generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn(NoiseSchedule()), expected)
    assert torch.equal(drawn(NoiseSchedule(), "uniform"), expected)


def test_one_time_step_is_the_only_one():
    schedule = NoiseSchedule(num_train_timesteps=1)
    for name in DENSITIES:
        assert schedule.density(name).tolist() == [1.0]


@pytest.mark.parametrize(
    ("density", "message"),
    [
        (("normal",), "choose one of " + ", ".join(DENSITIES)),
        (("uniform", 1.0), "no mean: leave density_mean out"),
        (("angle", None, 1.0), "no width: leave density_width out"),
        (("log-normal", float("nan")), "finite mean"),
        (("log-normal", None, 0.0), "positive width"),
        (("log-normal", 1e6), "finite weights of at least 0"),
    ],
)
def test_invalid_densities(density, message):
    with pytest.raises(UserError, match=message):
        NoiseSchedule().density(*density)


@pytest.fixture
def late():
    """A density of a user's own: only the last tenth."""
    assert sddpm.register_density is register_density
    register_density("late", lambda a, mean, width: torch.arange(len(a)) >= mean * len(a), mean=0.9)
    yield "late"
    del DENSITIES["late"]


def test_a_registered_density_is_one_like_any_other(late):
    assert drawn(NoiseSchedule(), "late").unique().tolist() == list(range(900, 1000))
    assert drawn(NoiseSchedule(), "late", 0.99).min() == 990
    with pytest.raises(UserError, match=f"{', '.join(DENSITIES)}, or call"):
        NoiseSchedule().density("normal")
    with pytest.raises(UserError, match="the density 'late' already exists"):
        register_density("late", lambda a, mean, width: a)


def test_weights_that_are_none_are_refused():
    for weights in (lambda a, mean, width: -a, lambda a, mean, width: a[1:], lambda a, mean, width: 0 * a):
        register_density("wrong", weights)
        try:
            with pytest.raises(UserError, match="a density must give 1000 finite weights"):
                NoiseSchedule().density("wrong")
        finally:
            del DENSITIES["wrong"]
