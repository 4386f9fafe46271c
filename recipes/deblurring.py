"""Deblurring: a sharp image from one blurred by a known kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from inverse_score.prior import Prior
from operators import GaussianBlur
from operators.blur import Blur

from .image_recipe import ImageRecipe, image_prior, method_options

PAPER = {"method": "dps", "preset": "paper"}


def deblurring(
    prior: Prior | str | Path,
    *,
    std: float | None = None,
    kernel: Tensor | None = None,
    noise_std: float = 0.01,
    paper: bool = False,
    **options: Any,
) -> ImageRecipe:
    """y = k * x + n: recipes.deblurring(prior, std=2.0)(blurred, num_samples=8).

    std: of a Gaussian kernel, in pixels, or kernel (h, w) of one's own; the image is taken as
    periodic, the boundary of `operators.Blur`. paper=True is DPS (Chung et al. 2023).
    """
    prior = image_prior(prior)
    if (std is None) == (kernel is None):
        raise ValueError("give std, of a Gaussian kernel, or kernel, one of the two")

    def operator_of(y: Tensor) -> Blur:
        shape = tuple(y.shape[1:])
        return GaussianBlur(shape, std) if std is not None else Blur(kernel, shape)  # type: ignore[arg-type]

    return ImageRecipe(prior, operator_of, noise_std, method_options(paper, PAPER, options))
