"""What a trained prior knows: E[x_0 | x_0 + s n] against baselines, and whether samples are copies.

The baselines' strengths are tuned on the very images: a bound on what they can do.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..prior import Prior

LEVELS = (0.02, 0.05, 0.1, 0.2, 0.5)
STRENGTHS = (0.4, 0.6, 0.8, 1.1, 1.6)


def central(image: Tensor, size: int) -> Tensor:
    row, column = ((n - size) // 2 for n in image.shape[1:])
    return image[:, row : row + size, column : column + size]


def denoised(prior: Prior, noisy: Tensor, s: float, batch: int = 4) -> Tensor:
    """E[x_0 | x_0 + s n] in the prior's units, in bfloat16."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return torch.cat([prior.denoise(part, s) for part in noisy.split(batch)])


def total_variation(image: np.ndarray, s: float, strength: float) -> np.ndarray:
    """Chambolle's TV with weight strength * s, colour channels coupled."""
    from skimage.restoration import denoise_tv_chambolle

    return denoise_tv_chambolle(image, weight=strength * s, channel_axis=0, max_num_iter=200)


def nonlocal_means(image: np.ndarray, s: float, strength: float) -> np.ndarray:
    """Non-local means (Buades et al. 2005; Darbon's fast form) with h = strength * s."""
    from skimage.restoration import denoise_nl_means

    options = {"patch_size": 5, "patch_distance": 6, "h": strength * s, "sigma": s}
    if len(image) == 1:
        # With a channel axis of length one scikit-image returns the image transposed.
        return denoise_nl_means(image[0], **options)[None]
    return denoise_nl_means(image, channel_axis=0, **options)


def tuned(method: Callable, noisy: Tensor, truth: Tensor, s: float) -> float:
    """The smallest mean square over STRENGTHS, tuned on the truth: a bound on what it can do."""
    clean, errors = truth.numpy(), []
    for strength in STRENGTHS:
        results = np.stack([method(image, s, strength) for image in noisy.numpy()])
        errors.append(float(np.mean((results - clean) ** 2)))
    return min(errors)


def denoising_table(prior: Prior, images: Tensor, strong: int = 6) -> list[str]:
    """Markdown: error in dB relative to the noise, 10 log10(mean square / s^2), by method.

    Complex priors are scored on the real part, the only one that the others are given: an
    imaginary part that is zero would help them. `strong` images are given to the slow methods
    (and to the prior: all columns are of the same images).
    """
    images = images[:: max(1, len(images) // strong)][:strong]
    side = min(160, *images.shape[2:])
    u = prior.from_data(torch.stack([central(image, side) for image in images]))
    shown = slice(0, 1) if u.shape[1] == 2 else slice(None)
    lines = ["| noise | prior | total variation | non-local means | gain over the better |"]
    lines.append("|---|---|---|---|---|")
    for s in LEVELS:
        noisy = u + s * torch.randn(u.shape, generator=torch.Generator().manual_seed(1))
        ours = (denoised(prior, noisy, s) - u)[:, shown].square().mean().item()
        others = [
            tuned(m, noisy[:, shown], u[:, shown], s) for m in (total_variation, nonlocal_means)
        ]
        row = [10 * math.log10(error / s**2) for error in (ours, *others)]
        gain = min(row[1:]) - row[0]
        lines.append(f"| {s:g} | " + " | ".join(f"{v:.2f}" for v in row) + f" | {gain:.2f} dB |")
    return lines


def nearest(images: Tensor, library: Tensor) -> Tensor:
    """For each image the distance to the nearest of library over the library's spread, both
    without their means: copies give 0, unrelated images about 1.4."""
    a, b = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in (images, library))
    a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    return (2 - 2 * (a @ b.T).amax(1)).clamp(min=0).sqrt()
