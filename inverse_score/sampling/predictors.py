"""Discretizations of the reverse-time SDE dx = [f x - g^2 score] dt + g dw.

Each function takes (prior, noise, options) and returns step(k, x, t, s) -> (x_s, x0_hat) for s < t.
In the exact kernel x_t | x_s ~ N(a x_s, v): a = alpha_t / alpha_s, v = sigma_t^2 - a^2 sigma_s^2.
"""

from __future__ import annotations

import math

from ..prior import Prior
from ..randomness import PREDICTOR, Noise
from .driver import Step, combined


def euler_maruyama(prior: Prior, noise: Noise) -> Step:
    """x_s = x_t + (s - t) (f x_t - g^2 score) + g sqrt(t - s) z  (Song et al. 2021, eq. 6)."""
    sde = prior.sde

    def step(k, x, t, s):
        x0_hat, z = prior.denoise(x, t), noise(x, k, PREDICTOR)
        pull = (t - s) * sde.g(t) ** 2 / sde.sigma(t) ** 2
        return combined(
            (1 + (s - t) * sde.f(t) - pull, x),
            (pull * sde.alpha(t), x0_hat),
            (sde.g(t) * math.sqrt(t - s), z),
        ), x0_hat

    return step


def reverse_diffusion(prior: Prior, noise: Noise) -> Step:
    """x_s = (2 - a) x_t + v score + sqrt(v) z  (Song et al. 2021, app. E).

    The forward chain's own discretization reversed: with VP's a = sqrt(1 - beta_i), v = beta_i,
    with VE's a = 1, v = sigma_i^2 - sigma_{i-1}^2.
    """
    sde = prior.sde

    def step(k, x, t, s):
        a, std = sde.transition(s, t)
        x0_hat, z = prior.denoise(x, t), noise(x, k, PREDICTOR)
        pull = (std / sde.sigma(t)) ** 2
        return combined((2 - a - pull, x), (pull * sde.alpha(t), x0_hat), (std, z)), x0_hat

    return step


def ancestral(prior: Prior, noise: Noise, *, variance: str = "posterior") -> Step:
    """x_s = (x_t + v score) / a + std z  (Ho et al. 2020, alg. 2; Song et al. 2021, app. F).

    That is the mean of x_s | x_t, x_0 = x0_hat. std^2 is that law's variance, sigma_s^2 v /
    sigma_t^2, or the kernel's own v with variance="transition" (the two choices of Ho et al.).
    """
    sde = prior.sde
    if variance not in ("posterior", "transition"):
        raise ValueError(f"variance must be 'posterior' or 'transition'; got {variance!r}")

    def step(k, x, t, s):
        a, std = sde.transition(s, t)
        x0_hat, z = prior.denoise(x, t), noise(x, k, PREDICTOR)
        pull = (std / sde.sigma(t)) ** 2
        spread = std if variance == "transition" else std * sde.sigma(s) / sde.sigma(t)
        return combined(((1 - pull) / a, x), (pull * sde.alpha(t) / a, x0_hat), (spread, z)), x0_hat

    return step


def ddim(prior: Prior, noise: Noise, *, eta: float = 0.0) -> Step:
    """x_s = alpha_s x0_hat + sqrt(sigma_s^2 - c^2) eps + c z, c = eta sigma_s sqrt(v) / sigma_t.

    Song, Meng & Ermon 2021, eq. 12 and 16, for any alpha and sigma. eta = 0 is deterministic (an
    exponential integrator of the probability-flow ODE), eta = 1 is ancestral sampling.
    """
    sde = prior.sde
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1]; got {eta}")

    def step(k, x, t, s):
        _, std = sde.transition(s, t)
        c = eta * sde.sigma(s) * std / sde.sigma(t)
        x0_hat = prior.denoise(x, t)
        # eps = (x - alpha_t x0_hat) / sigma_t.
        share = math.sqrt(sde.sigma(s) ** 2 - c**2) / sde.sigma(t)
        terms = [(share, x), (sde.alpha(s) - share * sde.alpha(t), x0_hat)]
        if c > 0:
            terms.append((c, noise(x, k, PREDICTOR)))
        return combined(*terms), x0_hat

    return step


def stochastic_rk(prior: Prior, noise: Noise) -> Step:
    """Two-stage stochastic Runge-Kutta of strong order 1.5 for additive noise, two calls a step.

    Roessler 2010's SRA1 on du = 2 (x0_hat - u) dl + sqrt(2) e^-l dw, u = x / alpha, l = log(alpha /
    sigma), which is the reverse SDE whatever the SDE; the linear term and the noise are integrated
    exactly, as exponential integrators do. With h the step in l and c = 3/4:
    x_c = (sigma_c / sigma_t) e^-ch x_t + alpha_c (1 - e^-2ch) D_t + sigma_c sqrt(1 - e^-2ch) z_c,
    x_s = the same at c = 1, with 1 / (c h) (h - (1 - e^-2h) / 2) (D_c - D_t) added to its D term.
    """
    sde, c = prior.sde, 0.75

    def step(k, x, t, s):
        h = math.log(sde.ratio(t) / sde.ratio(s))
        middle = sde.time(sde.ratio(t) * math.exp(-c * h))
        # z and z_c are as correlated as the path itself between c h and h.
        rho = math.sqrt(math.expm1(2 * c * h) / math.expm1(2 * h))
        z, z_2 = noise(x, 2 * k, PREDICTOR), noise(x, 2 * k + 1, PREDICTOR)

        def move(to, h, *terms):
            """The linear part of a move by h, D = sum of terms (weight, D_i), without noise."""
            linear = sde.sigma(to) / sde.sigma(t) * math.exp(-h)
            return combined((linear, x), *((sde.alpha(to) * w, D) for w, D in terms))

        x0_hat, kept = prior.denoise(x, t), -math.expm1(-2 * c * h)
        x_c = move(middle, c * h, (kept, x0_hat))
        std = sde.sigma(middle) * math.sqrt(kept)
        x_c.add_(z, alpha=std * rho).add_(z_2, alpha=std * math.sqrt(1 - rho**2))
        D_c, kept = prior.denoise(x_c, middle), -math.expm1(-2 * h)
        slope = (h - 0.5 * kept) / (c * h)
        x_s = move(s, h, (kept - slope, x0_hat), (slope, D_c))
        return x_s.add_(z, alpha=sde.sigma(s) * math.sqrt(kept)), x0_hat

    return step


def none(prior: Prior, noise: Noise) -> Step:
    """x_s = (alpha_s / alpha_t) x_t: the image stays, and a corrector does all the work.

    No call of the prior, so callbacks see the x0_hat of the corrector's last call (None at first).
    """
    sde = prior.sde

    def step(k, x, t, s):
        return sde.alpha(s) / sde.alpha(t) * x, None

    return step
