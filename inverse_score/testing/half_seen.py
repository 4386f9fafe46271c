"""A 4x4 Gaussian image of which half the pixels are measured: its posterior is known exactly."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from operators import LinearOperator, Mask

from ..gaussian import GaussianPrior, gaussian_kl
from ..posterior import error_spectrum
from ..randomness import Noise
from ..sde import SDE, VPSDE
from .toys import pixel_distances

SIZE, NOISE = 4, 0.05


def gaussian_prior(
    sde: SDE | None = None, *, spectrum: bool = True, range: tuple[float, float] = (1.0, 0.0)
) -> GaussianPrior:
    """Mean 0.5, covariance 0.15^2 exp(-distance / 2), with its measured error spectrum."""
    cov = 0.15**2 * torch.exp(-pixel_distances(SIZE) / 2)
    mean = torch.full((1, SIZE, SIZE), 0.5, dtype=torch.float64)
    prior = GaussianPrior(mean, cov, VPSDE() if sde is None else sde, range=range)
    if spectrum:
        images = prior.to_data(prior.sample(1024, seed=5, dtype=torch.float32))
        prior.card["error_spectrum"] = error_spectrum(prior, images, batch_size=1024)
    return prior


def seen_half() -> Mask:
    """Every second pixel, like a chessboard but for one row."""
    mask = (torch.arange(SIZE)[:, None] + torch.arange(SIZE)) % 2
    mask[1] = 0
    return Mask(mask[None].float())


def measurement(
    prior: GaussianPrior, operator: LinearOperator, *, items: int = 1, noise_std: float = NOISE
) -> tuple[Tensor, Tensor]:
    """(truth, y) of draws of the prior, in data units."""
    x = prior.to_data(prior.sample(items, seed=77, dtype=torch.float32))
    mask = operator(torch.ones_like(x)) != 0
    return x, operator(x) + noise_std * mask * Noise(1, range(items))(x, 0)


def excess(samples: Tensor, posterior: Any, item: int = 0) -> float:
    """KL of the moments of samples (n, 1, 4, 4) from an item's posterior, less that of as many
    exact samples, in nats."""
    flat, n = samples.detach().cpu().double().flatten(1), len(samples)
    cov = torch.cov(flat.T) * (n - 1) / n
    mean = posterior.mean[item].flatten()
    kl = gaussian_kl(flat.mean(0), cov, mean, posterior.cov[item])
    return kl - exact_samples_kl(n, flat.shape[1])


def exact_samples_kl(n: int, d: int) -> float:
    """E KL(N(mean, S) || N(m, C)) of n draws of N(m, C) = -E log(|S| / |C|) / 2, n S ~ W(C, n - 1).

    Bishop 2006, eq. B.81; the trace and the mean's square are d in sum. About d (d + 3) / (4 n).
    """
    half = (n - 1 - torch.arange(d, dtype=torch.float64)) / 2
    return float(-(torch.digamma(half).sum() + d * math.log(2 / n)) / 2)
