"""Higher-order solvers of the probability-flow ODE and the reverse SDE.

x / alpha against r = sigma / alpha obeys dx = (x - x0_hat) dr / r for every SDE, and with
lambda = -log r the semi-linear form that the multistep solvers integrate exactly.
"""

from __future__ import annotations

import math

from torch import Tensor

from ..prior import Prior
from ..randomness import PREDICTOR, Noise
from .driver import Step


def heun(prior: Prior, noise: Noise) -> Step:
    """Heun's second-order step in x / alpha against sigma / alpha, two calls a step.

    Karras et al. 2022, alg. 1, whose sigma and x are sigma / alpha and x / alpha here.
    """
    sde = prior.sde

    def step(k, x, t, s):
        r, r_s = sde.ratio(t), sde.ratio(s)
        x0_hat = prior.denoise(x, t)
        u = x / sde.alpha(t)
        slope = (u - x0_hat) / r
        predicted = u + (r_s - r) * slope
        slope_s = (predicted - prior.denoise(sde.alpha(s) * predicted, s)) / r_s
        return sde.alpha(s) * (u + (r_s - r) * 0.5 * (slope + slope_s)), x0_hat

    return step


def dpm_solver_2m(prior: Prior, noise: Noise, *, order: int = 2) -> Step:
    """DPM-Solver++ 2M, x_s = (sigma_s / sigma_t) x_t - alpha_s (e^-h - 1) D.

    Lu et al. 2022b, alg. 2: D = x0_hat + (x0_hat - its predecessor) / (2 r), h the step in
    lambda = log(alpha / sigma), r the ratio of the last step to this one. order 1: D = x0_hat.
    """
    return _multistep(prior, noise, 0.0, order)


def dpm_solver_2m_sde(prior: Prior, noise: Noise, *, eta: float = 1.0, order: int = 2) -> Step:
    """SDE-DPM-Solver++ 2M (Lu et al. 2022b, app. C):

    x_s = (sigma_s / sigma_t) e^-h x_t + alpha_s (1 - e^-2h) D + sigma_s sqrt(1 - e^-2h) z.
    eta scales the reverse SDE's noise: 0 is 2M, 1 the reverse diffusion itself. order 1: D is
    x0_hat.
    """
    if not eta >= 0:
        raise ValueError(f"eta must be >= 0; got {eta}")
    return _multistep(prior, noise, float(eta), order)


def _multistep(prior: Prior, noise: Noise, eta: float, order: int) -> Step:
    """The 2M step of dx = [f x - (1 + eta^2) g^2 / 2 score] dt + eta g dw, both solvers' own."""
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2; got {order}")
    sde = prior.sde
    last: list[tuple[float, Tensor]] = []  # (h, x0_hat) of the step before

    def step(k, x, t, s):
        h = math.log(sde.ratio(t) / sde.ratio(s))
        x0_hat = D = prior.denoise(x, t)
        if k > 0 and order == 2:
            h_before, before = last[0]
            D = x0_hat + (x0_hat - before) * (0.5 * h / h_before)
        last[:] = [(h, x0_hat)]
        damp = eta**2 * h
        mean = sde.sigma(s) / sde.sigma(t) * math.exp(-damp) * x
        mean = mean - sde.alpha(s) * math.expm1(-h - damp) * D
        if eta == 0:
            return mean, x0_hat
        std = sde.sigma(s) * math.sqrt(-math.expm1(-2 * damp))
        return mean + std * noise(x, k, PREDICTOR), x0_hat

    return step
