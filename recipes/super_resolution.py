"""Super-resolution: a fine image from its block means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from inverse_score.prior import Prior
from operators import Downsample

from .image_recipe import ImageRecipe, image_prior, method_options

PAPER = {"method": "ddnm", "preset": "paper"}


def super_resolution(
    prior: Prior | str | Path,
    factor: int,
    *,
    noise_std: float = 0.0,
    paper: bool = False,
    **options: Any,
) -> ImageRecipe:
    """y = means over factor x factor blocks of x: recipes.super_resolution(prior, 4)(small).

    paper=True is DDNM (Wang, Yu & Zhang 2023), whose operator this is.
    """
    prior = image_prior(prior)

    def operator_of(y: Tensor) -> Downsample:
        channels, height, width = y.shape[1:]
        return Downsample((channels, factor * height, factor * width), factor)

    return ImageRecipe(prior, operator_of, noise_std, method_options(paper, PAPER, options))
