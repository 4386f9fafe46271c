"""A 4x4 Gaussian image of which half the pixels are measured: its posterior is known exactly."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from operators import LinearOperator, Mask

from ..gaussian import GaussianPrior
from ..posterior import error_spectrum
from ..randomness import Noise
from ..sde import SDE, VPSDE
from .toys import excess_kl, pixel_distances

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


def half_mask() -> Mask:
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


def excess(samples: Tensor, posterior: Any) -> float:
    """excess_kl of samples (n, 1, 4, 4) from item 0's posterior, in nats."""
    return excess_kl(samples, posterior.mean[0], posterior.cov[0])
