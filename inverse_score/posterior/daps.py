"""DAPS: draw x_0 from x_t and the data, forget x_t, and add noise anew."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from torch import Tensor

from operators.linalg import per_item

from ..prior import Prior
from ..randomness import CORRECTOR, PREDICTOR, Noise
from ..sampling.driver import integrate, start
from ..sampling.grid import make_grid
from .measurement import Measurement
from .moments import IsotropicError
from .perturbation import gaussian_draw

if TYPE_CHECKING:
    from .methods import Plan


def daps(
    prior: Prior,
    data: Measurement,
    noise: Noise,
    plan: Plan,
    *,
    ode_calls: int = 1,
    scale: float | None = None,
    langevin: int = 0,
) -> Tensor:
    """Decoupled annealing (Zhang, Chu, Berner, Meng, Anandkumar & Song 2025), alg. 1.

    At every level r = sigma / alpha: m from x_t by `ode_calls` Euler steps of the
    probability-flow ODE (1: m = x0_hat); x_0 ~ N(m, v) p(y | x_0) / Z; x_s = alpha_s x_0 +
    sigma_s z. The Gaussian is drawn exactly, or by `langevin` steps from m, each of half the
    largest curvature's inverse. v: the prior's mean variance of x_0 given x_t (default), or
    (scale r)^2 (preset "paper": scale 1, 5 ODE calls, 100 Langevin steps). Approximates
    p(x_0 | x_t) by an isotropic Gaussian, which a smooth prior becomes as r -> 0: exact as the
    last level -> 0 with ever more levels. One x_0 a level: (levels - 1) * ode_calls + 1 calls.
    """
    if ode_calls < 1 or langevin < 0:
        raise ValueError(f"need ode_calls >= 1 and langevin >= 0; got {ode_calls} and {langevin}")
    if scale is not None and not scale > 0:
        raise ValueError(f"scale must be positive; got {scale}")
    sde = prior.sde
    error = IsotropicError(prior, data) if scale is None else None
    end = plan.times[-1]

    def step(k, x, t, s):
        r = sde.ratio(t)
        m = flow(prior, x, t, end, ode_calls)
        v = error(r) if error is not None else (scale * r) ** 2
        if langevin:
            x0 = _langevin(data, m, v, noise, k * langevin, langevin)
        else:
            x0 = gaussian_draw(data, m, v, noise, k)
        return sde.alpha(s) * x0 + sde.sigma(s) * noise(x, k, PREDICTOR), m

    shape = (len(data), *data.operator.in_shape)
    xT = start(prior, shape, noise, dtype=data.y.real.dtype, device=data.y.device)
    return integrate(step, prior, xT, plan.times, callback=plan.callback)


def flow(prior: Prior, x: Tensor, t: float, end: float, calls: int) -> Tensor:
    """x_0 of the probability-flow ODE from (x, t): calls - 1 Euler steps to `end`, then x0_hat."""
    if calls == 1 or t <= end:
        return prior.denoise(x, t)
    sde = prior.sde
    times = make_grid(sde, calls, end_ratio=sde.ratio(end), start_ratio=sde.ratio(t))
    times[0] = t
    for a, b in pairwise(times):
        x0_hat = prior.denoise(x, a)
        x = sde.alpha(b) * x0_hat + sde.sigma(b) / sde.sigma(a) * (x - sde.alpha(a) * x0_hat)
    return prior.denoise(x, times[-1])


def _langevin(
    data: Measurement, m: Tensor, v: float, noise: Noise, first: int, steps: int
) -> Tensor:
    """x <- x + h (A^T W (y - A x) + (m - x) / v) + sqrt(2 h) z, 2 h (|A^T W A| + 1 / v) = 1."""
    h = 0.5 / (data.gain + 1 / v)
    x = m
    for j in range(steps):
        drift = data.gradient(x) + (m - x) / v
        z = noise(x, first + j, CORRECTOR)
        x = x + per_item(h, x) * drift + per_item((2 * h).sqrt(), x) * z
    return x
