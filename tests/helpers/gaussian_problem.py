"""A 4x4 Gaussian image of which half the pixels are measured: its posterior is known exactly."""

from __future__ import annotations

import math

import torch

from inverse_score.gaussian import GaussianPrior, gaussian_kl
from inverse_score.posterior import error_spectrum
from inverse_score.randomness import Noise
from inverse_score.sde import VPSDE
from operators import Mask

SIZE, NOISE = 4, 0.05


def gaussian_prior(sde=None, *, spectrum=True, range=(1.0, 0.0)):
    """Mean 0.5, covariance 0.15^2 exp(-distance / 2), with its measured error spectrum."""
    i = torch.arange(SIZE, dtype=torch.float64)
    at = torch.cartesian_prod(i, i)
    cov = 0.15**2 * torch.exp(-torch.cdist(at, at) / 2)
    mean = torch.full((1, SIZE, SIZE), 0.5, dtype=torch.float64)
    prior = GaussianPrior(mean, cov, VPSDE() if sde is None else sde, range=range)
    if spectrum:
        images = prior.to_data(prior.sample(1024, seed=5, dtype=torch.float32))
        prior.card["error_spectrum"] = error_spectrum(prior, images, batch_size=1024)
    return prior


def half_mask():
    """Every second pixel, like a chessboard but for one row."""
    mask = (torch.arange(SIZE)[:, None] + torch.arange(SIZE)) % 2
    mask[1] = 0
    return Mask(mask[None].float())


def measurement(prior, operator, *, items=1, noise_std=NOISE):
    """(truth, y) of draws of the prior, in data units."""
    x = prior.to_data(prior.sample(items, seed=77, dtype=torch.float32))
    mask = operator(torch.ones_like(x)) != 0
    return x, operator(x) + noise_std * mask * Noise(1, range_of(items))(x, 0)


def excess(samples, posterior, item=0):
    """KL of the samples' moments from an item's posterior, less that of as many exact samples."""
    x = samples.double().flatten(1)
    n, d = x.shape
    cov = torch.cov(x.T) * (n - 1) / n
    mean = posterior.mean[item].flatten()
    return gaussian_kl(x.mean(0), cov, mean, posterior.cov[item]) - exact_samples_kl(n, d)


def exact_samples_kl(n, d):
    """E KL(N(mean, S) || N(m, C)) of n draws of N(m, C) = -E log(|S| / |C|) / 2, n S ~ W(C, n - 1).

    Bishop 2006, eq. B.81; the trace and the mean's square are d in sum. About d (d + 3) / (4 n).
    """
    half = (n - 1 - torch.arange(d, dtype=torch.float64)) / 2
    return float(-(torch.digamma(half).sum() + d * math.log(2 / n)) / 2)


range_of = range
