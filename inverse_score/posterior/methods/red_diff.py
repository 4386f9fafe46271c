"""RED-diff: one image that fits the data and that the denoiser leaves where it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...prior import Prior
from ...randomness import PREDICTOR, Noise
from ...sampling.driver import check_finite
from ..measurement import LinearMeasurement, Measurement
from ..method import Course, Method, Walk, check_positive, start_of
from ..moments import IsotropicError

BETAS, EPS = (0.9, 0.99), 1e-8


@dataclass(frozen=True)
class REDDiffOptions:
    """As of `red_diff`."""

    lr: float | None = None
    weight: float | None = None

    def __post_init__(self) -> None:
        check_positive("lr", self.lr)
        check_positive("weight", self.weight)


def red_diff(
    prior: Prior, data: Measurement, noise: Noise, walk: Walk, options: REDDiffOptions
) -> Tensor:
    """RED-diff (Mardani, Song, Kautz & Vahdat 2024), alg. 1: Adam on mu, one step a time.

    With x_t = alpha mu + sigma z and m = E[x_0 | x_t], the gradient at each time is
      A^T W (A mu - y) + (mu - m) / v_t,
    v_t the prior's mean variance of x_0 given x_t: in the mean over z and for v_t in the direction
    itself that is -grad log p(mu | y) of a Gaussian, so mu goes to the MAP as sigma / alpha -> 0.
    weight a number (preset "paper": 0.25): the paper's A^T (A mu - y) + weight (mu - m), from
    A^+ y. lr: Adam's step in u (preset "paper": 0.1); default half of v_t^(1/2). mu is a mode and
    not a sample: the spread over seeds is the optimizer's. One call a time, no vjp; takes any
    differentiable A.
    """
    error, sde = IsotropicError(prior, data), prior.sde
    lr, weight = options.lr, options.weight
    mu = _first(prior, data, noise, walk, error, paper=weight is not None)
    adam = _Adam(mu)
    for k, t in enumerate(walk.times):
        x = sde.alpha(t) * mu + sde.sigma(t) * noise(mu, k, PREDICTOR)
        x0_hat, v = prior.denoise(x, t), float(error(sde.ratio(t)))
        if weight is None:
            gradient = (mu - x0_hat) / v - data.gradient(mu)
        else:
            gradient = weight * (mu - x0_hat) - data.pullback(mu, data.residual(mu))
        mu = mu - (0.5 * v**0.5 if lr is None else lr) * adam(gradient)
        check_finite(mu, k, t)
        if walk.callback is not None:
            walk.callback(k, t, x, mu)
    return mu


class _Adam:
    """Adam's direction (Kingma & Ba 2015), element by element, so that items never meet."""

    def __init__(self, like: Tensor):
        self.first, self.second, self.count = torch.zeros_like(like), torch.zeros_like(like), 0

    def __call__(self, gradient: Tensor) -> Tensor:
        b1, b2 = BETAS
        self.count += 1
        self.first = b1 * self.first + (1 - b1) * gradient
        self.second = b2 * self.second + (1 - b2) * gradient**2
        size = (self.second / (1 - b2**self.count)).sqrt()
        return self.first / (1 - b1**self.count) / (size + EPS)


def _first(
    prior: Prior,
    data: Measurement,
    noise: Noise,
    walk: Walk,
    error: IsotropicError,
    *,
    paper: bool,
) -> Tensor:
    """mu to begin with: A^+ y for the paper, else the prior's mean after one step to the data."""
    linear = isinstance(data, LinearMeasurement)
    if paper and linear:
        return data.pinv(data.y)
    mean = prior.denoise(start_of(prior, data, noise), walk.times[0])
    if not linear:
        return mean
    return mean + data.solve(data.gradient(mean), 1 / error(prior.sde.ratio(walk.times[0])))


METHOD = Method(
    "red-diff",
    REDDiffOptions,
    red_diff,
    Course(None, steps=100),
    presets={"paper": {"lr": 0.1, "weight": 0.25, "steps": 1000, "kind": "uniform"}},
    # The paper's starts from A^+ y (and, where A is not linear, from the prior's mean too).
    calls=lambda options, steps: steps + (options.weight is None),
    nonlinear=True,
)
