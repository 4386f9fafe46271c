"""Orders of convergence of samplers on laws that are known.

Strong: E |x_h - x|^2 ^ 1/2 ~ h^p on the 5 x 5 mixture, every step size driven by one Brownian path.
Weak: the error of the variance on the Gaussian, exact, against the limit of infinitely many steps.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..gaussian import GaussianPrior
from ..sampling import PREDICTORS, make_grid
from ..sde import SDE, VPSDE
from .moments import exact_moments
from .toys import grid_of_modes, stationary

CELLS = 8192  # of the finest path
RATIOS = (10.0, 0.7)  # the range of sigma / alpha in which the modes part
COUNTS = (32, 64, 128, 256)
REFERENCE = 2048
# Theoretical weak order, and strong order (of the deterministic ones: order of the ODE's error).
ORDERS = {
    "euler-maruyama": (1, 1.0),
    "reverse-diffusion": (1, 1.0),
    "ancestral": (1, 1.0),
    "stochastic-rk": (2, 1.5),
    "dpm++2m-sde": (2, 1.0),
    "ddim": (1, 1.0),
    "dpm++2m": (2, 2.0),
    "heun": (2, 2.0),
}
DETERMINISTIC = ("ddim", "dpm++2m", "heun")
WEAK_STEPS = (100, 200)


class BrownianPath:
    """One Brownian path in l = log(alpha / sigma) for every item, cut into `steps` equal steps.

    The reverse SDE's noise over a step of length h is proportional to the integral of e^q dw, which
    gives the step's first draw; the part of the integral of e^q (e^-2q - e^-2h) dw that is
    independent of it gives the second (stochastic-rk).
    """

    def __init__(self, items: int, dim: int, length: float):
        draw = torch.Generator().manual_seed(0)
        self.w = torch.randn(items, CELLS, dim, generator=draw, dtype=torch.float64)
        self.cell = length / CELLS

    def cut(self, steps: int, draws: int) -> PathNoise:
        w = self.w.reshape(len(self.w), steps, CELLS // steps, -1)
        q = (torch.arange(w.shape[2], dtype=torch.float64) + 0.5) * self.cell
        h = self.cell * w.shape[2]
        first, second = torch.exp(q), torch.exp(q) * (torch.exp(-2 * q) - math.exp(-2 * h))
        first = first / first.norm()
        second = second - (second @ first) * first
        second = second / second.norm().clamp(min=1e-300)
        along = [torch.einsum("ikcd,c->kid", w, weight) for weight in (first, second)]
        return PathNoise(along[:draws])


class PathNoise:
    """noise(like, step): the path's draws in the order in which a sampler asks for them."""

    def __init__(self, draws: list[Tensor]):
        self.draws = draws

    def __call__(self, like: Tensor, step: int, stream: int = 0) -> Tensor:
        return self.draws[step % len(self.draws)][step // len(self.draws)].reshape(like.shape)


def _end_state(prior, name, x, path, steps):
    sde = prior.sde
    logs = torch.linspace(math.log(RATIOS[0]), math.log(RATIOS[1]), steps + 1, dtype=torch.float64)
    times = sde.time(logs.exp()).tolist()
    noise = path.cut(steps, 2 if name == "stochastic-rk" else 1)
    step = PREDICTORS[name](prior, noise)
    for k in range(steps):
        x, _ = step(k, x, times[k], times[k + 1])
    return x


@functools.cache
def _problem(finest: str, sde: SDE, items: int) -> tuple[Tensor, BrownianPath, Tensor]:
    """(starts, their Brownian path, where the finest run of that method on it ends)."""
    prior = grid_of_modes(sde)
    x = prior.sample(items, t=sde.time(RATIOS[0]))
    path = BrownianPath(items, 2, math.log(RATIOS[0] / RATIOS[1]))
    return x, path, _end_state(prior, finest, x, path, REFERENCE)


@torch.no_grad()
def strong_errors(name: str, sde: SDE, items: int = 256) -> list[float]:
    """RMS distance at the end, in units of sigma, from the finest run on the same path, for each of
    COUNTS; deterministic methods against Heun, stochastic ones against stochastic-rk."""
    finest = "heun" if name in ("ddim", "dpm++2m", "heun") else "stochastic-rk"
    x, path, truth = _problem(finest, sde, items)
    prior = grid_of_modes(sde)
    ends = [_end_state(prior, name, x, path, count) for count in COUNTS]
    sigma = sde.sigma(sde.time(RATIOS[1]))
    return [(end - truth).square().mean().sqrt().item() / sigma for end in ends]


def limit_variance(prior: GaussianPrior, times: Sequence[float], deterministic: bool) -> Tensor:
    """Variance (d,) of x0_hat at the last time, in the eigenbasis, for infinitely many steps from
    N(0, sigma(T)^2) at the first time.

    With p the eigenvalues of p_t's covariance, the ODE takes x to sqrt(p_s / p_t) x and the SDE to
    N(a p_s / p_t x, p_s - a^2 p_s^2 / p_t), a = alpha_t / alpha_s: the law of x_s given x_t.
    """
    sde, t, s = prior.sde, times[0], times[-1]
    values = prior.values[0]
    p_t, p_s = (sde.alpha(u) ** 2 * values + sde.sigma(u) ** 2 for u in (t, s))
    first, a = sde.sigma(sde.T) ** 2, sde.alpha(t) / sde.alpha(s)
    if deterministic:
        variance = p_s / p_t * first
    else:
        variance = (a * p_s / p_t) ** 2 * first + p_s - (a * p_s) ** 2 / p_t
    return (sde.alpha(s) * values / p_s) ** 2 * variance


def weak_order(name: str) -> float:
    """The slope of the variance's error between the two WEAK_STEPS."""
    prior, misses = stationary(VPSDE()), []
    for steps in WEAK_STEPS:
        grid = make_grid(prior.sde, steps + 1, end_ratio=0.05, start_ratio=5.0)
        truth = limit_variance(prior, grid, name in DETERMINISTIC)
        misses.append((exact_moments(prior, name, grid)[1] - truth).abs().max().item())
    return math.log(misses[0] / misses[1]) / math.log(WEAK_STEPS[1] / WEAK_STEPS[0])


def slope(errors: Sequence[float], counts: Sequence[int]) -> float:
    return math.log(errors[0] / errors[-1]) / math.log(counts[-1] / counts[0])
