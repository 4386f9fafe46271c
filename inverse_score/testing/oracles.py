"""Exact posterior samples of the 8x8 Gaussian of which half is seen, or with a std off by much."""

from __future__ import annotations

import torch
from torch import Tensor

from operators import Mask

from ..randomness import Noise
from ..sde import VPSDE
from .toys import random_half, stationary

NOISE_STD = 0.1


def posterior_draws(
    factor: float, measurements: int, num_samples: int, seed: int
) -> tuple[Tensor, Tensor]:
    """(samples (S, N, *event), truths (N, *event)): mean + factor (x - mean) of posterior draws x.

    The truths are draws of the prior, so at factor 1 their ranks are uniform, by construction.
    """
    prior = stationary(VPSDE())
    like = torch.empty(measurements, *prior.mean.shape, dtype=torch.float64)
    noise = Noise(seed, range(measurements))
    truth = prior.mean + _correlated(noise(like, 0), prior.cov)
    operator = Mask(random_half(), image_shape=tuple(prior.mean.shape))
    y = operator(truth) + NOISE_STD * random_half() * noise(like, 1)
    posterior = prior.posterior(y, operator, NOISE_STD)
    draws = torch.stack([noise(like, 2 + s) for s in range(num_samples)])
    spread = _correlated(draws.flatten(0, 1), posterior.cov[0]).reshape(draws.shape)
    return posterior.mean + factor * spread, truth


def _correlated(z: Tensor, cov: Tensor) -> Tensor:
    """Standard normal draws (N, *event) given this covariance."""
    return (z.flatten(1) @ torch.linalg.cholesky(cov).T).reshape(z.shape)
