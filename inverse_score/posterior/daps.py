"""DAPS: draw x_0 from x_t and the data, forget x_t, and add noise anew."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from torch import Tensor

from ..prior import Prior
from ..randomness import PREDICTOR, Noise
from ..sampling.driver import integrate, start
from ..sampling.grid import make_grid
from .measurement import Measurement
from .moments import IsotropicError
from .perturbation import conditional_draw

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
    langevin: int | None = None,
) -> Tensor:
    """Decoupled annealing (Zhang, Chu, Berner, Meng, Anandkumar & Song 2025), alg. 1.

    At every level r = sigma / alpha: m from x_t by `ode_calls` Euler steps of the
    probability-flow ODE (1: m = x0_hat); x_0 ~ N(m, v) p(y | x_0) / Z; x_s = alpha_s x_0 +
    sigma_s z. x_0 is drawn exactly where A is linear and langevin 0 (default there), else by
    `langevin` Metropolis-adjusted moves from m (50 where A is not linear), which take any
    differentiable A. v: the prior's mean variance of x_0 given x_t (default), or
    (scale r)^2 (preset "paper": scale 1, 5 ODE calls, 100 Langevin steps). Approximates
    p(x_0 | x_t) by an isotropic Gaussian, which a smooth prior becomes as r -> 0: exact as the
    last level -> 0 with ever more levels. One x_0 a level: (levels - 1) * ode_calls + 1 calls.
    """
    if ode_calls < 1:
        raise ValueError(f"ode_calls must be at least 1; got {ode_calls}")
    if scale is not None and not scale > 0:
        raise ValueError(f"scale must be positive; got {scale}")
    sde = prior.sde
    error = IsotropicError(prior, data) if scale is None else None
    end = plan.times[-1]

    def step(k, x, t, s):
        r = sde.ratio(t)
        m = flow(prior, x, t, end, ode_calls)
        v = error(r) if error is not None else (scale * r) ** 2
        x0 = conditional_draw(data, m, v, noise, k, langevin)
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
