"""Moves that leave p_s unchanged (up to their step size): the correctors of predictor-corrector.

Each function takes (prior, noise, options) and returns correct(j, x, s, t) -> (x, x0_hat), where s
is the state's time, t the time of the grid before it and j numbers the move. All lengths scale as
x / alpha, so one rule serves every SDE, and every norm is an item's own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..prior import Prior
from ..randomness import CORRECTOR, Noise
from ..sde import per_item
from .driver import Correct, score_of


def langevin(prior: Prior, noise: Noise, *, snr: float = 0.16, alpha: str = "one") -> Correct:
    """x + eps score + sqrt(2 eps) z, eps = 2 alpha (snr |z| / |score|)^2.

    Song et al. 2021, alg. 4, with each item's own norms (the reference code takes their mean over
    the batch). alpha "one" is invariant under x -> x / alpha(t). For reproduction: "paper" is VP's
    alpha(t)^2, which all but stops the corrector at large t; "released" is the code's 1 - beta_i,
    (alpha_t / alpha_s)^2. As eps depends on z and score, the move inflates the variance of noise
    by about 1 + 4 / d: nothing for images, much for events of a few dimensions ("hmc" has none).
    """
    _check_positive(snr=snr)
    weigh = _choose_alpha(prior, alpha)
    sde = prior.sde

    def correct(j, x, s, t):
        x0_hat = prior.denoise(x, s)
        score, z = score_of(x0_hat, x, sde.alpha(s), sde.sigma(s)), noise(x, j, CORRECTOR)
        tiny = torch.finfo(x.dtype).tiny
        ratio = z.flatten(1).norm(dim=1) / score.flatten(1).norm(dim=1).clamp(min=tiny)
        eps = per_item(2 * weigh(s, t) * (snr * ratio) ** 2, x)
        return x + eps * score + (2 * eps).sqrt() * z, x0_hat

    return correct


def annealed_langevin(
    prior: Prior, noise: Noise, *, snr: float | None = None, inner: int = 1, alpha: str = "one"
) -> Correct:
    """x + eps score + sqrt(2 eps) z with eps = 2 alpha (snr sigma)^2 (Song & Ermon 2019, alg. 1).

    Their step epsilon sigma_i^2 / sigma_L^2 is snr^2 = epsilon / (4 sigma_L^2) (0.22 for 2e-5 and
    0.01). snr None takes the step that keeps sigma's own variance right over `inner` moves from
    one noise level to the next (Song & Ermon 2020, technique 4).
    """
    if snr is not None:
        _check_positive(snr=snr)
    weigh = _choose_alpha(prior, alpha)
    sde = prior.sde

    def correct(j, x, s, t):
        x0_hat = prior.denoise(x, s)
        score = score_of(x0_hat, x, sde.alpha(s), sde.sigma(s))
        if snr is None:
            relative = annealing_step(sde.ratio(t) / sde.ratio(s), inner)
        else:
            relative = 2 * snr**2
        eps = weigh(s, t) * relative * sde.sigma(s) ** 2
        return x + eps * score + math.sqrt(2 * eps) * noise(x, j, CORRECTOR), x0_hat

    return correct


@functools.lru_cache(maxsize=4096)
def annealing_step(shrink: float, inner: int) -> float:
    """e = eps / sigma_i^2 such that `inner` Langevin moves take N(0, (shrink sigma_i)^2) to
    N(0, sigma_i^2) as nearly as they can (Song & Ermon 2020, proposition 3).

    One move maps a variance v (in sigma_i^2) to (1 - e)^2 v + 2 e. The least e in (0, 1] where the
    result is 1, or the e where it is closest.
    """

    def miss(e: float) -> float:
        v = shrink**2
        for _ in range(inner):
            v = (1 - e) ** 2 * v + 2 * e
        return v - 1

    grid = [math.exp(math.log(1e-6) * (1 - i / 400)) for i in range(401)]
    values = [miss(e) for e in grid]
    for a, b, left, right in zip(grid, grid[1:], values, values[1:], strict=False):
        if left > 0 >= right:
            for _ in range(60):
                middle = 0.5 * (a + b)
                a, b = (middle, b) if miss(middle) > 0 else (a, middle)
            return 0.5 * (a + b)
    return min(grid, key=lambda e: abs(miss(e)))


def unadjusted_hmc(prior: Prior, noise: Noise, *, step: float = 0.5, leapfrog: int = 3) -> Correct:
    """Leapfrog of `leapfrog` steps of length step * sigma with fresh momentum, always accepted.

    Neal 2011, sec. 5.2, with the score as the force; its bias is of order step^2. Stable for
    step < 2. Costs leapfrog + 1 calls.
    """
    return _hmc(prior, noise, step, leapfrog, None)


def hmc(prior: Prior, noise: Noise, *, step: float = 0.5, leapfrog: int = 3) -> Correct:
    """Leapfrog and a Metropolis test for each item (Neal 2011, sec. 5.2): leaves p_s unchanged.

    Needs the prior's log_prob(x, t), which closed forms have and networks do not.
    """
    log_prob = getattr(prior, "log_prob", None)
    if log_prob is None:
        raise ValueError(
            "corrector 'hmc' tests proposals with log p_t, which this prior does not give; "
            "'unadjusted-hmc' does without"
        )
    return _hmc(prior, noise, step, leapfrog, log_prob)


def _hmc(
    prior: Prior, noise: Noise, step: float, leapfrog: int, log_prob: Callable[..., Tensor] | None
) -> Correct:
    _check_positive(step=step, leapfrog=leapfrog)
    sde = prior.sde

    def correct(j, x, s, t):
        sigma, h = sde.sigma(s), step * sde.sigma(s)
        x0_hat = prior.denoise(x, s)
        score = score_of(x0_hat, x, sde.alpha(s), sigma)
        p = p_start = noise(x, 2 * j, CORRECTOR)
        moved = x
        for _ in range(leapfrog):
            p = p + 0.5 * h * score
            moved = moved + h * p
            score = score_of(prior.denoise(moved, s), moved, sde.alpha(s), sigma)
            p = p + 0.5 * h * score
        if log_prob is None:
            return moved, x0_hat
        kinetic = 0.5 * (p_start.flatten(1) ** 2 - p.flatten(1) ** 2).sum(1)
        log_ratio = log_prob(moved, s) - log_prob(x, s) + kinetic
        uniform = noise.uniform(x.new_empty(len(x), 1), 2 * j + 1, CORRECTOR)[:, 0]
        accepted = (uniform.log() < log_ratio).reshape(-1, *[1] * (x.ndim - 1))
        return torch.where(accepted, moved, x), x0_hat

    return correct


def _choose_alpha(prior: Prior, alpha: str) -> Callable[[float, float], float]:
    """alpha(s, t) of the Langevin step: s the state's time, t the grid's time before."""
    sde = prior.sde
    rules: dict[str, Callable[[float, float], float]] = {
        "one": lambda s, t: 1.0,
        "paper": lambda s, t: sde.alpha(s) ** 2,
        "released": lambda s, t: (sde.alpha(t) / sde.alpha(s)) ** 2,
    }
    if alpha not in rules:
        raise ValueError(f"alpha must be one of {', '.join(rules)}; got {alpha!r}")
    return rules[alpha]


def _check_positive(**values: Any) -> None:
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be positive; got {value}")
