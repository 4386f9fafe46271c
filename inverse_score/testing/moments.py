"""Exact moments of what a fixed-step sampler makes of a Gaussian prior: no Monte Carlo error.

The sampler is affine in xT and in every draw of noise. One run in float64, with a row of the batch
for each input set to 1 and the rest 0, gives its linear part; in the eigenbasis of the prior's
covariance all of it is diagonal, so one row serves all coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..gaussian import GaussianPrior, gaussian_kl
from ..prior import Prior
from ..sampling import SAMPLERS

Sampler = Callable[..., Tensor]
# Draws of noise a step; two for what is not listed.
DRAWS = {
    "ddim": 0,
    "dpm++2m": 0,
    "heun": 0,
    "euler-maruyama": 1,
    "reverse-diffusion": 1,
    "ancestral": 1,
    "dpm++2m-sde": 1,
}


class _Impulses:
    """In place of noise: the n-th draw is 1 in row n + 2 and 0 elsewhere."""

    def __init__(self, rows: int):
        self.rows, self.draws = rows, 0

    def __call__(self, like: Tensor, step: int, stream: int = 0) -> Tensor:
        row = self.draws + 2
        if row >= self.rows:
            raise ValueError(f"the sampler drew noise more than {self.rows - 2} times")
        self.draws += 1
        z = torch.zeros_like(like)
        z[row] = 1
        return z


def exact_moments(
    prior: GaussianPrior,
    sampler: str | Sampler,
    times: Sequence[float],
    *,
    draws: int | None = None,
    **options,
) -> tuple[Tensor, Tensor, Tensor]:
    """(mean, variance, truth): the result's mean and variance, and the prior's own variance, in
    the eigenbasis of its covariance, all (d,); the start is the SDE's terminal law. draws: the most
    draws of noise a step, known for the named samplers."""
    run = SAMPLERS[sampler] if isinstance(sampler, str) else sampler
    diagonal = DiagonalGaussian(prior)
    if draws is None:
        draws = DRAWS.get(sampler, 2) if isinstance(sampler, str) and not options else 2
    rows = 2 + draws * (len(times) - 1)
    xT = torch.zeros(rows, prior.values.shape[1], dtype=torch.float64)
    xT[1] = prior.sde.sigma(prior.sde.T)
    x = run(diagonal, xT, times, _Impulses(rows), **options)
    return x[0] - diagonal.center, (x[1:] - x[0]).square().sum(0), diagonal.variance


class DiagonalGaussian(Prior):
    """The Gaussian prior in the eigenbasis of its covariance, where it costs no matrix product."""

    def __init__(self, prior: GaussianPrior):
        self.variance = prior.values[0]
        self.center = prior.vectors[0].T @ prior.mean.flatten()
        shape = tuple(self.center.shape)
        super().__init__(self._x0, prior.sde, output="x0", event_shape=shape, t_min=prior.t_min)

    def _x0(self, x: Tensor, t: Tensor) -> Tensor:
        return self.denoise(x, t[0].item())

    def denoise(self, x: Tensor, t: float) -> Tensor:
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        gain = alpha * self.variance / (alpha**2 * self.variance + sigma**2)
        return self.center + gain * (x - alpha * self.center)


def exact_kl(
    prior: GaussianPrior, sampler: str | Sampler, times: Sequence[float], **options
) -> float:
    """KL(the sampler's law || the prior) in nats, exactly."""
    shift, variance, truth = exact_moments(prior, sampler, times, **options)
    return gaussian_kl(shift, torch.diag(variance), torch.zeros_like(shift), torch.diag(truth))
