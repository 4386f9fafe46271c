"""Higher-order solvers of the probability-flow ODE and the reverse SDE.

x / alpha against r = sigma / alpha obeys dx = (x - x0_hat) dr / r for every SDE, and with
lambda = -log r the semi-linear form that the multistep solvers integrate exactly.
"""

from __future__ import annotations

import math

from torch import Tensor

from ..prior import Prior
from ..randomness import PREDICTOR, Noise
from .driver import Step, combined


def heun(prior: Prior, noise: Noise) -> Step:
    """Heun's second-order step in x / alpha against sigma / alpha, two calls a step.

    Karras et al. 2022, alg. 1, whose sigma and x are sigma / alpha and x / alpha here.
    """
    sde = prior.sde

    def step(k, x, t, s):
        r, r_s = sde.ratio(t), sde.ratio(s)
        x0_hat = prior.denoise(x, t)
        # u + (r_s - r) (u - x0_hat) / r of u = x / alpha, and the mean of both slopes the same way.
        linear, alpha, half = sde.sigma(s) / sde.sigma(t), sde.alpha(s), (r_s - r) / 2
        predicted = combined((linear, x), (alpha * (1 - r_s / r), x0_hat))
        second = prior.denoise(predicted, s)
        first = alpha * half * (1 / r_s - 2 / r)
        return combined((linear, x), (first, x0_hat), (-alpha * half / r_s, second)), x0_hat

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
        x0_hat, damp = prior.denoise(x, t), eta**2 * h
        toward = -sde.alpha(s) * math.expm1(-h - damp)
        terms = [(sde.sigma(s) / sde.sigma(t) * math.exp(-damp), x), (toward, x0_hat)]
        if k > 0 and order == 2:
            h_before, before = last[0]
            ahead = 0.5 * h / h_before
            terms[1:] = [(toward * (1 + ahead), x0_hat), (-toward * ahead, before)]
        last[:] = [(h, x0_hat)]
        if eta > 0:
            std = sde.sigma(s) * math.sqrt(-math.expm1(-2 * damp))
            terms.append((std, noise(x, k, PREDICTOR)))
        return combined(*terms), x0_hat

    return step
