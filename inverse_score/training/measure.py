"""What is measured once a prior is trained and kept in its file: how good it is, and how to use it.

Levels and rates are those of Song & Ermon 2020 (Improved techniques for training score-based
generative models, "IT" below), computed from the images themselves.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..errors import BadInput
from ..prior import Prior
from ..sde import SDE
from .items import Items


def stack(items: Items, count: int) -> Tensor:
    """The first `count` images of one shape, (n, *event), in the prior's units."""
    count = count if items.count is None else min(count, items.count)
    images = [items[position][0] for position in range(count)]
    return torch.stack([image for image in images if image.shape == images[0].shape])


def largest_distance(images: Tensor) -> float:
    """The largest distance |x_i - x_j| between two images: IT's technique 1 for sigma_max.

    Raises BadInput where all images are one and the same.
    """
    flat = images.flatten(1).double()
    if len(flat) < 2:
        return 10 * math.sqrt(flat.shape[1])
    largest = torch.pdist(flat).max().item()
    if largest == 0:
        raise BadInput(
            f"the first {len(flat)} training images are one and the same; look at them, or give "
            "sde.sigma_max"
        )
    return largest


def levels_for(dimension: int, sigma_min: float, sigma_max: float) -> int:
    """How many geometric levels keep neighbours' shells overlapping: IT's technique 2.

    |x| at level sigma in d dimensions is about N(sqrt(d) sigma, sigma^2 / 2); the ratio gamma of
    two levels solves Phi(sqrt(2 d) (gamma - 1) + 3 gamma) - Phi(sqrt(2 d) (gamma - 1) - 3 gamma)
    = 0.5.
    """

    def overlap(gamma: float) -> float:
        centre = math.sqrt(2 * dimension) * (gamma - 1)
        return _phi(centre + 3 * gamma) - _phi(centre - 3 * gamma)

    low, high = 1.0, 2.0
    while overlap(high) > 0.5 and high < 1e6:
        high *= 2
    for _ in range(100):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if overlap(middle) > 0.5 else (low, middle)
    return max(2, 1 + math.ceil(math.log(sigma_max / sigma_min) / math.log(low)))


def langevin_snr(gamma: float, steps: int = 1) -> float:
    """The signal-to-noise r of Langevin steps that keep each level's variance: IT's technique 4.

    With step size a sigma^2 (x <- x + a sigma^2 s + sqrt(2 a) sigma z) the variance of n = `steps`
    steps at level sigma, started from level gamma sigma, over sigma^2 is
    (1 - a)^(2 n) (gamma^2 - 2 a / (1 - (1 - a)^2)) + 2 a / (1 - (1 - a)^2); the a whose value is
    nearest to 1 is taken. Song et al. 2021's corrector has a = 2 r^2 where |z| = sigma |s|.
    """

    def variance(a: float) -> float:
        shrink = (1 - a) ** 2
        rest = 2 * a / (1 - shrink)
        return shrink**steps * (gamma**2 - rest) + rest

    candidates = [10 ** (-6 + 6 * k / 3000) for k in range(3000)]
    best = min(candidates, key=lambda a: abs(variance(a) - 1))
    return math.sqrt(best / 2)


def _phi(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2))


def suggest(images: Tensor, sde: SDE, t_min: float) -> dict[str, Any]:
    """sigma_max for the next training, and levels and snr of Langevin samplers for this prior.

    sigma_max, in the prior's units, is technique 1's; `levels` and `snr` are for
    "annealed-langevin" and "pc" between this prior's smallest and largest noise-to-signal.
    """
    low, high = sde.ratio(t_min), sde.ratio(sde.T)
    count = levels_for(images[0].numel(), low, high)
    return {
        "sigma_max": float(f"{largest_distance(images):.4g}"),
        "levels": count,
        "snr": float(f"{langevin_snr((high / low) ** (1 / (count - 1))):.3g}"),
        "rule": "Song & Ermon 2020, techniques 1, 2 and 4",
    }


def measure(prior: Prior, images: Tensor, *, held_out: bool, batch_size: int) -> dict[str, Any]:
    """The card's "error_spectrum", from images (n, *event) in the prior's units.

    It is the power of the denoising error by noise level (posterior.covariance), with "held_out"
    false where no image was kept out of training, which makes it too small. Nothing for points.
    """
    if images.ndim != 4 or len(images) < 2:
        return {}
    from ..posterior.covariance import KEY
    from ..posterior.held_out import error_spectrum

    data = prior.to_data(images).to(prior.device)
    return {KEY: {**error_spectrum(prior, data, batch_size=batch_size), "held_out": held_out}}
