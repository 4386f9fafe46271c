"""DAPS: draw x_0 from x_t and the data, forget x_t, and add noise anew."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from ...prior import Prior
from ...randomness import PREDICTOR, Noise
from ...sampling.driver import integrate
from ...sampling.grid import make_grid
from ..measurement import Measurement
from ..method import Course, Method, Walk, check_count, check_positive, start_of
from ..moments import IsotropicError
from ..perturbation import conditional_draw


@dataclass(frozen=True)
class DAPSOptions:
    """As of `daps`."""

    ode_calls: int = 1
    scale: float | None = None
    langevin: int | None = None

    def __post_init__(self) -> None:
        check_count("ode_calls", self.ode_calls)
        check_positive("scale", self.scale)


def daps(prior: Prior, data: Measurement, noise: Noise, walk: Walk, options: DAPSOptions) -> Tensor:
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
    sde, scale = prior.sde, options.scale
    error = IsotropicError(prior, data) if scale is None else None
    end = walk.times[-1]

    def step(k: int, x: Tensor, t: float, s: float) -> tuple[Tensor, Tensor]:
        r = sde.ratio(t)
        m = flow(prior, x, t, end, options.ode_calls)
        v = error(r) if error is not None else (scale * r) ** 2
        x0 = conditional_draw(data, m, v, noise, k, options.langevin)
        return sde.alpha(s) * x0 + sde.sigma(s) * noise(x, k, PREDICTOR), m

    xT = start_of(prior, data, noise)
    return integrate(step, prior, xT, walk.times, callback=walk.callback)


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


METHOD = Method(
    "daps",
    DAPSOptions,
    daps,
    Course(None, steps=200),
    presets={"paper": {"scale": 1.0, "ode_calls": 5, "langevin": 100, "kind": "karras"}},
    calls=lambda options, steps: (steps - 1) * options.ode_calls + 1,
    nonlinear=True,
)
