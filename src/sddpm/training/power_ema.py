"""Averages of weights with a length chosen after training: power-function profiles and their combination.

Karras et al., 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models" (EDM2), arXiv 2312.02696,
section 3. Training keeps averages of a few lengths and stores them at intervals; the average of any other length is a
linear combination of the stored ones. These are pure functions in float64; gamma is the exponent of a profile,
sigma_rel its standard deviation relative to the training time.
"""

import math
from collections.abc import Sequence

import numpy as np

WIDEST = 12.0**-0.5  # sigma_rel of gamma = 0, the plain mean of all steps


def profile(tau: np.ndarray, gamma: float, t: float) -> np.ndarray:
    """The weight of time tau in the average of exponent gamma at time t (the paper's p, the integrand of its eq. 3):
    (gamma + 1) tau^gamma / t^(gamma + 1) up to t, then 0; it integrates to 1."""
    return np.where(tau <= t, (gamma + 1) / t * (np.minimum(tau, t) / t) ** gamma, 0.0)


def beta(step: int, gamma: float) -> float:
    """The decay that turns the average of step - 1 (from 1) into that of `step`: (1 - 1 / t)^(gamma + 1) (section 3.1).

    The weight of step k is then exactly the profile's integral from k - 1 to k; the initial weights get none.
    """
    return (1.0 - 1.0 / step) ** (gamma + 1.0)


def sigma_rel_of(gamma: float) -> float:
    """Width of a profile relative to t: sqrt((gamma + 1) / ((gamma + 2)^2 (gamma + 3))) (section 3.1)."""
    return math.sqrt((gamma + 1.0) / ((gamma + 2.0) ** 2 * (gamma + 3.0)))


def gamma_of(sigma_rel: float) -> float:
    """The exponent, at least 0, of a relative width in (0, `WIDEST`]: the largest root of
    gamma^3 + 7 gamma^2 + (16 - s) gamma + 12 - s with s = sigma_rel^-2 (the equation above, multiplied out)."""
    if not 0.0 < sigma_rel <= WIDEST:
        raise ValueError(f"a relative width must be above 0 and at most {WIDEST:.4f}, got {sigma_rel}")
    s = sigma_rel**-2
    return float(max(np.roots([1.0, 7.0, 16.0 - s, 12.0 - s]).real))


def inner_product(t_a: np.ndarray, gamma_a: np.ndarray, t_b: np.ndarray, gamma_b: np.ndarray) -> np.ndarray:
    """Integrals of the products of two profiles (appendix C); arguments broadcast. With t_a <= t_b,
    (gamma_a + 1) (gamma_b + 1) / (gamma_a + gamma_b + 1) (t_a / t_b)^gamma_b / t_b."""
    first = t_a <= t_b
    ratio, longer = np.where(first, t_a / t_b, t_b / t_a), np.maximum(t_a, t_b)
    later_gamma = np.where(first, gamma_b, gamma_a)
    return (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1) * ratio**later_gamma / longer


def combination(steps: Sequence[float], gammas: Sequence[float], step: float, gamma: float) -> tuple[np.ndarray, float]:
    """The combination of stored averages whose profile is nearest to another, by least squares (section 3.2).

    Unlike in the paper, the coefficients must sum to 1, so that constant weights are reproduced exactly.

    Args:
        steps, gammas: of the N stored averages.
        step, gamma: of the average that is wanted.

    Returns:
        (coefficients [N], distance of the two profiles relative to the norm of the wanted one).
    """
    t, g = np.asarray(steps, np.float64), np.asarray(gammas, np.float64)
    n = len(t)
    system = np.zeros((n + 1, n + 1))
    system[:n, :n] = inner_product(t[:, None], g[:, None], t, g) * step  # times step: entries without a unit
    system[n, :n] = system[:n, n] = 1.0
    wanted = np.append(inner_product(t, g, np.asarray(float(step)), np.asarray(gamma)) * step, 1.0)
    x = np.linalg.lstsq(system, wanted, rcond=1e-14)[0][:n]
    norm = float(inner_product(*(np.asarray(value, np.float64) for value in (step, gamma, step, gamma)))) * step
    square = x @ system[:n, :n] @ x - 2 * x @ wanted[:n] + norm
    return x, math.sqrt(max(square, 0.0) / norm)


def quadrature(steps: Sequence[float], step: float, gamma: float) -> np.ndarray:
    """Coefficients [N] for an average from plain weights, known at N increasing `steps` <= `step`: the integral of the
    profile times the linear interpolation of the weights, constant before the first and after the last.

    Exact if the weights change linearly between the known steps.
    """
    t = np.asarray(steps, np.float64) / step

    def moments(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Integrals of p and of tau p from low to high, in units of `step`."""
        first = (gamma + 1) / (gamma + 2) * (high ** (gamma + 2) - low ** (gamma + 2))
        return high ** (gamma + 1) - low ** (gamma + 1), first

    weight, first = moments(t[:-1], t[1:])
    to_later = (first - t[:-1] * weight) / np.diff(t)
    x = np.zeros(len(t))
    x[:-1] += weight - to_later
    x[1:] += to_later
    x[0] += t[0] ** (gamma + 1)
    x[-1] += 1.0 - t[-1] ** (gamma + 1)
    return x
