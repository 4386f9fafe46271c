"""Compressed sensing: an image from a few of its random orthonormal coefficients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from inverse_score.errors import BadInput
from inverse_score.prior import Prior
from operators import CompressedSensing

from .image_recipe import ImageRecipe, image_prior, method_options

PAPER = {"method": "jalal", "preset": "paper"}


def compressed_sensing(
    prior: Prior | str | Path,
    operator: CompressedSensing,
    *,
    noise_std: float,
    paper: bool = False,
    **options: Any,
) -> ImageRecipe:
    """y = A x + n: recipes.compressed_sensing(prior, A, noise_std=0.01)(y).

    operator: the one that measured. paper=True is the annealed Langevin of Jalal et al. 2021.
    """
    prior = image_prior(prior, operator.in_shape[0])

    def operator_of(y: Tensor) -> CompressedSensing:
        if tuple(y.shape[1:]) != tuple(operator.out_shape):
            raise BadInput(f"y must be (B, *{operator.out_shape}); got {tuple(y.shape)}")
        return operator

    options = method_options(paper, PAPER, options)
    return ImageRecipe(prior, operator_of, noise_std, options, images=False)
