"""Split Gibbs sampling: exact likelihood draws and diffusion-denoising draws in turn (PnP-DM)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from ...prior import Prior
from ...randomness import PREDICTOR, START, Noise
from ...sampling.driver import check_finite
from ...sampling.grid import make_grid
from ..covariance import pixel_variance
from ..measurement import Measurement
from ..method import Course, Method, Walk, check_count, check_positive
from ..moments import IsotropicError
from ..perturbation import conditional_draw


@dataclass(frozen=True)
class SplitGibbsOptions:
    """As of `split_gibbs`."""

    rho_start: float | None = None
    rho_end: float | None = None
    decay: float | None = None
    inner: int = 4
    langevin: int | None = None
    variance: float | None = None

    def __post_init__(self) -> None:
        check_count("inner", self.inner)
        check_positive("variance", self.variance)


def split_gibbs(
    prior: Prior, data: Measurement, noise: Noise, walk: Walk, options: SplitGibbsOptions
) -> Tensor:
    """PnP-DM (Wu, Sun, Chen, Zhang, Yue & Bouman 2024), split Gibbs of Vono et al. 2019.

    Gibbs sweeps of p(x, z | y) ~ p(y | z) p(x) exp(-|x - z|^2 / (2 rho^2)):
      z | x ~ N(x, rho^2) p(y | z) / Z, drawn as `perturbation.conditional_draw` says (langevin);
      x | z: the reverse diffusion from x_t = alpha z at noise-to-signal rho, `inner` calls.
    One sweep for each time of the plan: rho falls geometrically over the first 70 % from rho_start
    (default: 3 pixel std of the prior) to rho_end (default: the grid's end, a fifth of the data's
    noise or less), and stays. decay: rho_k = max(rho_end, rho_start decay^k) instead (preset
    "paper"). The law of x is the posterior of data whose noise is noise^2 + rho^2 A A^T, so that
    the error falls as rho_end^4 in KL: exact as rho_end -> 0 with sweeps to mix and inner calls.
    Cost: sweeps * inner calls. Raises ValueError for rho outside the prior's noise levels.
    """
    ladder, inner = _ladder(prior, data, walk, options), options.inner
    error = IsotropicError(prior, data, options.variance)
    x = ladder[0] * noise(data.like(), 0, START)
    for k, rho in enumerate(ladder):
        z = conditional_draw(data, x, rho**2, noise, k, options.langevin)
        x = reverse_draw(prior, z, rho, inner, error, noise, k * inner)
        t = prior.sde.time(rho)
        check_finite(x, k, t)
        if walk.callback is not None:
            walk.callback(k, t, prior.sde.alpha(t) * z, x)
    return x


def reverse_draw(
    prior: Prior,
    z: Tensor,
    rho: float,
    calls: int,
    error: IsotropicError,
    noise: Noise,
    first: int,
) -> Tensor:
    """x_0 ~ p(x_0 | x_t = alpha z) at noise-to-signal rho, by moment-matched reverse steps.

    In u = x / alpha, q = r_s^2 / r_t^2: u_s ~ N(q u_t + (1 - q) x0_hat, r_s^2 (1 - q) +
    (1 - q)^2 v_t), the law of u_s where x_0 | u_t ~ N(x0_hat, v_t); the last step has r_s = 0.
    Without v_t a few calls would leave too little variance, and each sweep would lose some.
    """
    u, sde = z, prior.sde
    for k, (r_t, r) in enumerate(pairwise([*_levels(prior, rho, calls), 0.0])):
        q, t = (r / r_t) ** 2, sde.time(r_t)
        x0_hat = prior.denoise(sde.alpha(t) * u, t)
        spread = r**2 * (1 - q) + (1 - q) ** 2 * float(error(r_t))
        u = q * u + (1 - q) * x0_hat + math.sqrt(spread) * noise(u, first + k, PREDICTOR)
    return u


def _levels(prior: Prior, rho: float, calls: int) -> list[float]:
    """`calls` noise-to-signal ratios from rho to rho / 10, or to the least the prior knows."""
    sde = prior.sde
    end = max(rho / 10, sde.ratio(prior.t_min))
    if calls == 1 or end >= rho * (1 - 1e-6):
        return [max(rho, sde.ratio(prior.t_min))]
    times = make_grid(sde, calls, end_ratio=end, start_ratio=rho)
    return [rho, *(sde.ratio(t) for t in times[1:])]


def _ladder(prior: Prior, data: Measurement, walk: Walk, options: SplitGibbsOptions) -> list[float]:
    """rho of every sweep."""
    sde, sweeps = prior.sde, len(walk.times)
    rho_start, decay = options.rho_start, options.decay
    least, most = sde.ratio(prior.t_min), sde.ratio(sde.T)
    end = sde.ratio(walk.times[-1]) if options.rho_end is None else float(options.rho_end)
    if rho_start is None:
        variance = pixel_variance(prior, data.operator.in_shape, data.y.real.dtype)
        rho_start = min(max(3 * math.sqrt(variance), 2 * end), most)
    if not least * (1 - 1e-6) <= end < rho_start <= most * (1 + 1e-6):
        raise ValueError(
            f"rho must fall from rho_start to rho_end within the prior's noise levels "
            f"{least:.3g} to {most:.3g}; got rho_start {rho_start:.6g}, rho_end {end:.6g}"
        )
    if decay is None:
        decay = (end / rho_start) ** (1 / max(1, math.ceil(0.7 * sweeps) - 1))
    if not 0 < decay < 1:
        raise ValueError(f"decay must lie in (0, 1); got {decay}")
    return [max(end, rho_start * decay**k) for k in range(sweeps)]


METHOD = Method(
    "split-gibbs",
    SplitGibbsOptions,
    split_gibbs,
    Course(None, steps=100),
    presets={"paper": {"rho_start": 10.0, "decay": 0.9, "rho_end": 0.3, "inner": 100}},
    calls=lambda options, steps: steps * options.inner,
    nonlinear=True,
)
