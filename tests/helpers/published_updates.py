"""Float64 recursions of the solvers, written from their papers in numpy, and Gaussian data, whose epsilon is known.

For x_0 ~ N(mu, s^2) and x_t = alpha x_0 + sigma eps, the exact answer of a network is
eps(x, t) = sigma (x - alpha mu) / (alpha^2 s^2 + sigma^2), and the probability-flow ODE keeps
(x_t - alpha mu) / sqrt(alpha^2 s^2 + sigma^2) constant.

All recursions take `a`, the alphas_cumprod table, `ts`, the falling time steps after which comes the clean image with
a = 1, `eps(x, t)` and x at ts[0], and return the clean image.
"""

import numpy as np

from sddpm.diffusion.timesteps import respaced_timesteps


class Gaussian:
    """Data N(mu, s^2) under the noise schedule with the table `a`."""

    def __init__(self, a, mu=0.3, s=0.5):
        self.a, self.mu, self.s = np.asarray(a, dtype=np.float64), mu, s

    def eps(self, x, t):
        alpha, sigma = self.a[t] ** 0.5, (1 - self.a[t]) ** 0.5
        return sigma * (x - alpha * self.mu) / (alpha**2 * self.s**2 + sigma**2)

    def v(self, x, t):
        alpha, sigma = self.a[t] ** 0.5, (1 - self.a[t]) ** 0.5
        eps = self.eps(x, t)
        return alpha * eps - sigma * (x - sigma * eps) / alpha

    def std(self, t):
        return (self.a[t] * self.s**2 + 1 - self.a[t]) ** 0.5

    def h(self, t):
        """E eps(x_t, t)^2: the posterior is Gaussian, and x_t has the variance std(t)^2."""
        return (1 - self.a[t]) / self.std(t) ** 2

    def moments(self):
        """As `Moments.to_dict`, for all t."""
        h = [float(self.h(t)) for t in range(len(self.a))]
        return {"h": h, "standard_error": [0.0] * len(h), "samples": 1}

    def flow(self, x, t_from, t_to):
        """Exact solution of the probability-flow ODE."""
        z = (x - self.a[t_from] ** 0.5 * self.mu) / self.std(t_from)
        return self.a[t_to] ** 0.5 * self.mu + self.std(t_to) * z


def levels(a, ts):
    """alphas_cumprod at every time step, then that of the clean image."""
    return [*(a[t] for t in ts), 1.0]


def ddpm(a, ts, eps, x, noises):
    """Ho et al. 2020, algorithm 2 and eq. 7, on the respaced betas of Nichol & Dhariwal 2021, section 4."""
    a_bar = levels(a, ts)
    for i, t in enumerate(ts):
        beta = 1 - a_bar[i] / a_bar[i + 1]
        mean = (x - beta / (1 - a_bar[i]) ** 0.5 * eps(x, t)) / (1 - beta) ** 0.5
        x = mean if i == len(ts) - 1 else mean + beta**0.5 * noises[i]
    return x


def ddpm_std(a, ts, data):
    """Exact standard deviation of what `ddpm` draws from x_T ~ N(0, 1): every step is affine in x."""
    a_bar, variance = levels(a, ts), 1.0
    for i, t in enumerate(ts):
        beta = 1 - a_bar[i] / a_bar[i + 1]
        slope = data.eps(1.0, t) - data.eps(0.0, t)
        gain = (1 - beta / (1 - a_bar[i]) ** 0.5 * slope) / (1 - beta) ** 0.5
        variance = gain**2 * variance + (0 if i == len(ts) - 1 else beta)
    return variance**0.5


def ddim(a, ts, eps, x, noises=None, eta=0.0):
    """Song et al. 2021, eq. 12 and 16."""
    a_bar = levels(a, ts)
    for i, t in enumerate(ts):
        now, then = a_bar[i], a_bar[i + 1]
        e = eps(x, t)
        sigma = eta * ((1 - then) / (1 - now)) ** 0.5 * (1 - now / then) ** 0.5
        x = then**0.5 * (x - (1 - now) ** 0.5 * e) / now**0.5 + (1 - then - sigma**2) ** 0.5 * e
        if noises is not None:
            x = x + sigma * noises[i]
    return x


def alphas_sigmas_lambdas(a, ts):
    a_bar = np.array([a[t] for t in ts])
    alpha, sigma = a_bar**0.5, (1 - a_bar) ** 0.5
    return alpha, sigma, np.log(alpha / sigma)


def dpm_solver_pp_2m(a, ts, eps, x, noises=None):
    """Lu et al. 2022 (DPM-Solver++), algorithm 2, and with noises its SDE form (section 5); the stride to the clean
    image, lambda = infinity, is x_0."""
    alpha, sigma, lam = alphas_sigmas_lambdas(a, ts)
    previous = None
    for i, t in enumerate(ts):
        x0 = (x - sigma[i] * eps(x, t)) / alpha[i]
        if i == len(ts) - 1:
            return x0
        h = lam[i + 1] - lam[i]
        d = x0
        if previous is not None:
            r = (lam[i] - lam[i - 1]) / h
            d = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * previous
        if noises is None:
            x = sigma[i + 1] / sigma[i] * x - alpha[i + 1] * np.expm1(-h) * d
        else:
            kept = sigma[i + 1] / sigma[i] * np.exp(-h) * x
            x = kept - alpha[i + 1] * np.expm1(-2 * h) * d + sigma[i + 1] * (-np.expm1(-2 * h)) ** 0.5 * noises[i]
        previous = x0
    raise AssertionError


def unipc_2(a, ts, eps, x):
    """Zhao et al. 2023 (UniPC-2, data prediction, B2).

    The predictor of order 2 and the corrector of order 1 have the closed forms with the coefficient 1/2. The corrector
    of order 2 solves for coefficients that integrate the parabola through the last three x_0 exactly, and is written
    so here: over a stride h in lambda, alpha * integral of exp(-(h - u)) (m + c1 u + c2 u^2) du.
    """
    alpha, sigma, lam = alphas_sigmas_lambdas(a, ts)
    n, models, start, order = len(ts), [], x, 0
    for i, t in enumerate(ts):
        m = (x - sigma[i] * eps(x, t)) / alpha[i]
        if i > 0:  # correct the arrival at ts[i], from `start` at ts[i - 1]
            h = lam[i] - lam[i - 1]
            e0 = -np.expm1(-h)
            base = sigma[i] / sigma[i - 1] * start + alpha[i] * e0 * models[-1]
            if order == 1:
                x = base + alpha[i] * e0 * (m - models[-1]) / 2
            else:
                r = lam[i - 1] - lam[i - 2]
                e1 = h - e0
                e2 = h**2 - 2 * e1
                forward, backward = (m - models[-1]) / h, (models[-1] - models[-2]) / r
                c2 = (forward - backward) / (h + r)
                x = base + alpha[i] * ((forward - c2 * h) * e1 + c2 * e2)
        models.append(m)
        if i == n - 1:
            return m
        order = min(2, i + 1, n - i)
        h = lam[i + 1] - lam[i]
        e0 = -np.expm1(-h)
        start = x
        x = sigma[i + 1] / sigma[i] * x + alpha[i + 1] * e0 * m
        if order == 2:
            x = x + alpha[i + 1] * e0 * (m - models[-2]) / ((lam[i] - lam[i - 1]) / h) / 2
    raise AssertionError


def plms(a, ts, eps, x):
    """Liu et al. 2022 (PNDM): transfer of eq. 11, linear multistep of eq. 12, started by an improved Euler step; the
    stride to the clean image takes the newest slope alone, as that of `dpm_solver_pp_2m`. Where time steps are uneven,
    the mean over the stride of the polynomial through the last slopes, which eq. 12 is for equal strides.
    """
    a_bar = levels(a, ts)

    def transfer(x, e, now, then):
        fall = then - now
        return (then / now) ** 0.5 * x - fall * e / (
            now**0.5 * ((1 - then) ** 0.5 * now**0.5 + ((1 - now) * then) ** 0.5)
        )

    history = []
    for i, t in enumerate(ts):
        e = eps(x, t)
        history.append(e)
        if i == 0:
            slope = e
            if len(ts) > 1:
                slope = (e + eps(transfer(x, e, a_bar[0], a_bar[1]), ts[1])) / 2
        elif i == len(ts) - 1:
            slope = e
        elif list(ts) != respaced_timesteps(len(ts), len(a)):
            kept = history[-4:]
            through = np.polyfit(np.array(ts[i - len(kept) + 1 : i + 1]) - t, kept, len(kept) - 1)
            arrive = ts[i + 1] - t
            slope = np.array([np.polyval(np.polyint(p), arrive) / arrive for p in through.T])
        elif i == 1:
            slope = (3 * e - history[-2]) / 2
        elif i == 2:
            slope = (23 * e - 16 * history[-2] + 5 * history[-3]) / 12
        else:
            slope = (55 * e - 59 * history[-2] + 37 * history[-3] - 9 * history[-4]) / 24
        x = transfer(x, slope, a_bar[i], a_bar[i + 1])
    return x
