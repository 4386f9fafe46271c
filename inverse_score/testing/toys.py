"""Toy problems whose law is known, and distances to it, so that tables compare.

An excess is a KL divergence less its floor, what as many exact samples would score.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..gaussian import GaussianMixturePrior, GaussianPrior, gaussian_kl
from ..prior import Prior
from ..randomness import Noise
from ..sde import SDE

SIZE = 8


def pixel_distances(size: int = SIZE) -> Tensor:
    """Distances between the pixels of a size x size image, in pixels: (size^2, size^2)."""
    i = torch.arange(size, dtype=torch.float64)
    at = torch.cartesian_prod(i, i)
    return torch.cdist(at, at)


def stationary(sde: SDE, size: int = SIZE) -> GaussianPrior:
    """1 x 8 x 8 image, mean 0.5, covariance 0.15^2 exp(-distance / 4)."""
    cov = 0.15**2 * torch.exp(-pixel_distances(size) / 4)
    return GaussianPrior(torch.full((1, size, size), 0.5, dtype=torch.float64), cov, sde)


def nonstationary(sde: SDE, size: int = SIZE) -> GaussianPrior:
    """A 1 x 8 x 8 image whose std grows from 0.05 to 0.3 and whose correlation length shrinks from
    6 to 1.5 pixels from left to right, with a ramp as its mean.

    Paciorek & Schervish 2006, eq. 8 for exp: with lengths l_i, c_ij = s_i s_j 2 l_i l_j /
    (l_i^2 + l_j^2) exp(-|i - j| / sqrt((l_i^2 + l_j^2) / 2)), positive definite in the plane.
    """
    across = torch.linspace(0, 1, size, dtype=torch.float64).repeat(size, 1).flatten()
    std, length = 0.05 + 0.25 * across, 6.0 - 4.5 * across
    mean_square = 0.5 * (length[:, None] ** 2 + length**2)
    decay = torch.exp(-pixel_distances(size) / mean_square.sqrt())
    cov = std[:, None] * std * length[:, None] * length / mean_square * decay
    mean = 0.3 + 0.4 * across.reshape(size, size).T
    return GaussianPrior(mean[None], cov, sde)


def grid_of_modes(sde: SDE) -> GaussianMixturePrior:
    """5 x 5 modes in the plane, 2 apart, std 0.05, weights proportional to 1, 2, 3, 4, 5 by row."""
    at = torch.arange(-2, 3, dtype=torch.float64) * 2
    means = torch.cartesian_prod(at, at)
    weights = torch.arange(1, 6, dtype=torch.float64).repeat_interleave(5)
    covs = 0.05**2 * torch.eye(2, dtype=torch.float64).expand(25, 2, 2)
    return GaussianMixturePrior(weights, means, covs, sde)


class IsotropicModes(Prior):
    """The denoiser of a mixture whose modes are all N(m_k, std^2 I), at a tenth of the cost."""

    def __init__(self, mixture: GaussianMixturePrior):
        super().__init__(
            mixture.denoise,
            mixture.sde,
            output="x0",
            event_shape=mixture.event_shape,
            t_min=mixture.t_min,
        )
        self.means, self.log_weights = mixture.means.float(), mixture.weights.log().float()
        self.variance = mixture.covs[0, 0, 0].item()

    def denoise(self, x: Tensor, t: Any) -> Tensor:
        """m + alpha std^2 / v (x - alpha m), m = sum_k r_k m_k and v = alpha^2 std^2 + sigma^2."""
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        v = alpha**2 * self.variance + sigma**2
        square = self.means.square().sum(1)
        log_r = self.log_weights + (alpha * x @ self.means.T - 0.5 * alpha**2 * square) / v
        m = torch.softmax(log_r, dim=1) @ self.means
        return m + alpha * self.variance / v * (x - alpha * m)


def random_half(size: int = SIZE, seed: int = 0) -> Tensor:
    """1 at 32 of the 64 pixels (half of them), chosen at random by the seed: (1, size, size)."""
    order = Noise(seed, [0]).uniform(torch.empty(1, size * size), 0).argsort(dim=1)
    mask = torch.zeros(size * size)
    mask[order[0, : size * size // 2]] = 1
    return mask.reshape(1, size, size)


TOYS = {"stationary": stationary, "nonstationary": nonstationary, "grid-of-modes": grid_of_modes}


def kl_floor(dim: int, num: int) -> float:
    """E KL of `num` exact samples' moments from the truth, d (d + 3) / (4 n) nats (large n)."""
    return dim * (dim + 3) / (4 * num)


def excess_kl(samples: Tensor, mean: Tensor, cov: Tensor) -> float:
    """KL(moments of samples || N(mean, cov)) less its floor, in nats.

    samples (n, *event), mean (*event), cov (d, d). At d = 64, n = 16384 it scatters by 0.002.
    """
    flat = samples.detach().cpu().to(torch.float64).flatten(1)
    centred = flat - flat.mean(0)
    found = centred.T @ centred / len(flat)
    kl = gaussian_kl(flat.mean(0), found, mean.flatten().to(flat), cov.to(flat))
    return kl - kl_floor(flat.shape[1], len(flat))


def sliced_wasserstein(a: Tensor, b: Tensor, directions: int = 128) -> float:
    """Mean over fixed directions of the 1-D Wasserstein-1 distance of two equal-sized samples."""
    a, b = (value.detach().cpu().to(torch.float64).flatten(1) for value in (a, b))
    if a.shape != b.shape:
        raise ValueError(f"samples must be of one shape; got {tuple(a.shape)}, {tuple(b.shape)}")
    normal = Noise(0, [0])(torch.empty(1, directions, a.shape[1], dtype=a.dtype), 0)[0]
    onto = (normal / normal.norm(dim=1, keepdim=True)).T
    return ((a @ onto).sort(0).values - (b @ onto).sort(0).values).abs().mean().item()


@dataclass(frozen=True)
class ModeReport:
    """weights (K,): share of samples nearest to each mode; error: total variation of these from
    the truth; spread: std inside the modes over the true std; stray: share further than 5 std
    from every mode (a true sample: 4e-6)."""

    weights: Tensor
    error: float
    spread: float
    stray: float


def mode_report(samples: Tensor, prior: GaussianMixturePrior) -> ModeReport:
    """How well samples (n, 2) of an isotropic mixture find its modes and their weights."""
    flat, means = samples.detach().cpu().to(torch.float64).flatten(1), prior.means.flatten(1)
    distance, nearest = torch.cdist(flat, means).min(1)
    std = math.sqrt(prior.covs[0, 0, 0].item())
    weights = torch.bincount(nearest, minlength=len(means)) / len(flat)
    near = distance < 5 * std
    spread = (distance[near] ** 2).mean().div(flat.shape[1]).sqrt().item() / std
    error = 0.5 * (weights - prior.weights).abs().sum().item()
    return ModeReport(weights, error, spread, 1 - near.double().mean().item())
