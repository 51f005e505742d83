"""Power-function averages (EDM2, section 3) against integrals, sums and closed forms."""

import numpy as np
import pytest
from scipy.integrate import quad

from sddpm.training.power_ema import (
    WIDEST,
    beta,
    combination,
    gamma_of,
    inner_product,
    profile,
    quadrature,
    sigma_rel_of,
)

STEPS, KEPT = 4000, 125
TWO = (gamma_of(0.05), gamma_of(0.10))


def averaged(weights, gamma):
    """What the updates of training make of `weights` of the steps 1, 2, ...: the average after each."""
    average, after = 0.0, []
    for step, value in enumerate(weights, start=1):
        decay = beta(step, gamma)
        average = decay * average + (1 - decay) * value
        after.append(average)
    return np.array(after)


def stored():
    """Steps and exponents of a training's snapshots."""
    steps = np.arange(KEPT, STEPS + 1, KEPT)
    return np.tile(steps, 2), np.repeat(TWO, len(steps))


@pytest.mark.parametrize("gamma", [0.0, 0.5, *TWO])
def test_a_profile_integrates_to_one_and_is_as_wide_as_its_sigma_rel_says(gamma):
    t = 7.0
    moments = [quad(lambda tau, k=k: tau**k * profile(np.asarray(tau), gamma, t), 0, t)[0] for k in range(3)]
    assert moments[0] == pytest.approx(1, rel=1e-9)
    assert np.sqrt(moments[2] - moments[1] ** 2) / t == pytest.approx(sigma_rel_of(gamma), rel=1e-7)
    assert profile(np.asarray(7.1), gamma, t) == 0


@pytest.mark.parametrize("sigma_rel", [0.01, 0.05, 0.1, 0.2, 0.25, WIDEST])
def test_gamma_solves_the_equation_of_sigma_rel(sigma_rel):
    gamma = gamma_of(sigma_rel)
    assert gamma >= -1e-9
    assert sigma_rel_of(gamma) == pytest.approx(sigma_rel, rel=1e-9)


def test_the_papers_exponents():
    assert gamma_of(0.05) == pytest.approx(16.97, abs=0.005) and gamma_of(0.10) == pytest.approx(6.94, abs=0.005)
    assert gamma_of(WIDEST) == pytest.approx(0, abs=1e-9)
    for wrong in (0.0, -0.1, 0.3, float("nan")):
        with pytest.raises(ValueError, match="relative width"):
            gamma_of(wrong)


@pytest.mark.parametrize("gamma", [0.0, *TWO])
def test_the_updates_weigh_every_step_as_the_profile_does(gamma):
    """The weight of step k after t steps is the integral of the profile from k - 1 to k."""
    t, k = 50, 31
    found = averaged([float(step == k) for step in range(1, t + 1)], gamma)[-1]
    assert found == pytest.approx(quad(lambda tau: profile(np.asarray(tau), gamma, t), k - 1, k)[0], rel=1e-9)


@pytest.mark.parametrize("gamma", [0.0, *TWO])
def test_weights_that_grow_by_one_a_step(gamma):
    """By Abel's summation, sum k ((k/t)^(g+1) - ((k-1)/t)^(g+1)) = t - sum_{k<t} (k/t)^(g+1)."""
    t = np.arange(1, 201)
    expected = t[-1] - ((t[:-1] / t[-1]) ** (gamma + 1)).sum()
    assert averaged(t, gamma)[-1] == pytest.approx(expected, rel=1e-12)


def test_inner_products_are_integrals():
    for (t_a, g_a), (t_b, g_b) in [((3.0, 2.0), (5.0, 7.0)), ((5.0, 7.0), (3.0, 2.0)), ((4.0, 6.9), (4.0, 0.0))]:
        product = quad(
            lambda tau: profile(np.asarray(tau), g_a, t_a) * profile(np.asarray(tau), g_b, t_b),  # noqa: B023
            0, min(t_a, t_b),
        )[0]  # fmt: skip
        assert inner_product(*map(np.asarray, (t_a, g_a, t_b, g_b))) == pytest.approx(product, rel=1e-9)


@pytest.mark.parametrize("gamma", TWO)
@pytest.mark.parametrize("step", [KEPT * 9, STEPS])
def test_what_was_stored_is_found_again(gamma, step):
    steps, gammas = stored()
    x, error = combination(steps, gammas, step, gamma)
    expected = (steps == step) & (gammas == gamma)
    np.testing.assert_allclose(x, expected, atol=1e-6)
    assert error < 1e-6


@pytest.mark.parametrize("sigma_rel", [0.03, 0.08, 0.15, 0.25])
def test_any_length_is_what_training_with_it_would_have_made(sigma_rel):
    """A smooth course and a random walk: the combination of snapshots against the average kept from the start, from
    which it may differ by the product of two norms (Cauchy, Schwarz): of the profiles' difference and the course."""
    steps, gammas = stored()
    x, error = combination(steps, gammas, STEPS, gamma_of(sigma_rel))
    assert x.sum() == pytest.approx(1, abs=1e-12)
    assert error < 0.05
    rng = np.random.default_rng(0)
    k = np.arange(1, STEPS + 1)
    for course in (np.exp(-k / 900) + 3, np.cumsum(rng.standard_normal(STEPS)) / 60):
        kept = {gamma: averaged(course, gamma) for gamma in TWO}
        found = sum(x * [kept[g][int(t) - 1] for t, g in zip(steps, gammas, strict=True)])
        wanted = averaged(course, gamma_of(sigma_rel))[-1]
        norm = inner_product(*(np.asarray(v) for v in (STEPS, gamma_of(sigma_rel)) * 2)) ** 0.5
        assert abs(found - wanted) <= 1.001 * error * norm * course.std() * STEPS**0.5


def test_one_length_alone_and_few_snapshots_say_how_far_off_they_are():
    _, near = combination([1000, 2000], [TWO[1]] * 2, 2000, gamma_of(0.09))
    _, far = combination([1000, 2000], [TWO[1]] * 2, 2000, gamma_of(0.02))
    assert near < 0.1 < 0.5 < far


def test_plain_weights_make_the_exact_average_of_straight_lines():
    """theta(tau) = tau: the average is (g + 1) / (g + 2) t, up to what lies before the first one known."""
    gamma, steps = TWO[1], np.arange(100, 2001, 100)
    x = quadrature(steps, 2000, gamma)
    assert x.sum() == pytest.approx(1, rel=1e-12) and (x >= 0).all()
    assert x @ steps == pytest.approx((gamma + 1) / (gamma + 2) * 2000, rel=1e-6)
    assert quadrature([500], 1000, gamma) == pytest.approx([1.0])
    steps = np.arange(500, 20001, 500)
    course = np.exp(-np.arange(1, 20001) / 5000)
    found = quadrature(steps, 20000, gamma) @ course[steps - 1]
    assert found == pytest.approx(averaged(course, gamma)[-1], rel=2e-3)
