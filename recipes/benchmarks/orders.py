"""Strong order of convergence on a mixture: every step size driven by one Brownian path."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from inverse_score.sampling import PREDICTORS
from inverse_score.sde import SDE

from .toys import grid_of_modes

CELLS = 8192  # of the finest path
RATIOS = (10.0, 0.7)  # the range of sigma / alpha in which the modes part
COUNTS = (32, 64, 128, 256)
REFERENCE = 2048


class Path:
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
def _problem(finest: str, sde: SDE, items: int) -> tuple[Tensor, Path, Tensor]:
    """(starts, their Brownian path, where the finest run of that method on it ends)."""
    prior = grid_of_modes(sde)
    x = prior.sample(items, t=sde.time(RATIOS[0]))
    path = Path(items, 2, math.log(RATIOS[0] / RATIOS[1]))
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
