"""Colorization: a colour image from its grey one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from inverse_score.errors import BadInput
from inverse_score.prior import Prior
from operators import REC601, Grayscale

from .image_recipe import ImageRecipe, image_prior, method_options

PAPER = {"method": "replacement", "preset": "paper"}
WEIGHTS = {"mean": (1 / 3, 1 / 3, 1 / 3), "rec601": REC601}


def colorization(
    prior: Prior | str | Path,
    *,
    weights: str = "mean",
    noise_std: float = 0.0,
    paper: bool = False,
    **options: Any,
) -> ImageRecipe:
    """y = w . x: recipes.colorization(prior)(grey (1, H, W), num_samples=8).

    weights: "mean" of the channels (Song et al. 2021) or "rec601" luma, as cameras and PNG
    converters make grey. paper=True replaces the grey coordinate of an orthonormal colour basis at
    every step (Song et al. 2021, app. I.3). Exact grey is recoloured by "ddnm" unless `method` says
    otherwise (`posterior.auto`).
    """
    prior = image_prior(prior, 3)
    if weights not in WEIGHTS:
        raise ValueError(f"weights must be one of {', '.join(WEIGHTS)}; got {weights!r}")

    def operator_of(y: Tensor) -> Grayscale:
        if y.ndim != 4 or y.shape[1] != 1:
            raise BadInput(f"colorization takes grey images (B, 1, H, W); got {tuple(y.shape)}")
        return Grayscale((3, *y.shape[2:]), weights=WEIGHTS[weights])

    return ImageRecipe(prior, operator_of, noise_std, method_options(paper, PAPER, options))
