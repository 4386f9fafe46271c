"""Exact moments of what a fixed-step sampler makes of a Gaussian prior: no Monte Carlo error.

The sampler is affine in xT and in every draw of noise. One run in float64, with a row of the batch
for each input set to 1 and the rest 0, gives its linear part; in the eigenbasis of the prior's
covariance all of it is diagonal, so one row serves all coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from inverse_score.gaussian import GaussianPrior, gaussian_kl
from inverse_score.sampling import SAMPLERS

Sampler = Callable[..., Tensor]


class Impulses:
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
    prior: GaussianPrior, sampler: str | Sampler, times: Sequence[float], **options
) -> tuple[Tensor, Tensor, Tensor]:
    """(mean, variance, truth): the result's mean and variance, and the prior's own variance, in
    the eigenbasis of its covariance, all (d,); the start is the SDE's terminal law."""
    run = SAMPLERS[sampler] if isinstance(sampler, str) else sampler
    sde, values = prior.sde, prior.values[0]
    mean = prior.vectors[0].T @ prior.mean.flatten()
    diagonal = GaussianPrior(mean, torch.diag(values), sde)
    # No sampler here draws more than twice a step.
    rows = 2 + 2 * (len(times) - 1)
    xT = torch.zeros(rows, len(mean), dtype=torch.float64)
    xT[1] = sde.sigma(sde.T)
    x = run(diagonal, xT, times, Impulses(rows), **options)
    return x[0] - mean, (x[1:] - x[0]).square().sum(0), values


def exact_kl(
    prior: GaussianPrior, sampler: str | Sampler, times: Sequence[float], **options
) -> float:
    """KL(the sampler's law || the prior) in nats, exactly."""
    shift, variance, truth = exact_moments(prior, sampler, times, **options)
    return gaussian_kl(shift, torch.diag(variance), torch.zeros_like(shift), torch.diag(truth))
