"""Inpainting: the pixels of an image that were not seen, given those that were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inverse_score.errors import BadInput
from inverse_score.prior import Prior
from operators import Mask

from .image_recipe import ImageRecipe, image_prior, method_options

PAPER = {"method": "replacement", "preset": "paper"}


def inpainting(
    prior: Prior | str | Path,
    mask: Tensor,
    *,
    noise_std: float = 0.0,
    paper: bool = False,
    **options: Any,
) -> ImageRecipe:
    """y = mask * x: recipes.inpainting(prior, mask)(image, num_samples=8).

    mask (H, W) or (C, H, W): 1 where the image is known; what the image holds elsewhere is not
    looked at. noise_std 0 keeps known pixels bit for bit up to rounding. paper=True replaces the
    known part at every step (Song et al. 2021, app. I.2).
    """
    prior = image_prior(prior)
    mask = torch.as_tensor(mask)

    def operator_of(y: Tensor) -> Mask:
        shape = tuple(y.shape[1:])
        if tuple(mask.shape[-2:]) != shape[-2:]:
            raise BadInput(
                f"mask must be of the image's size {shape[-2:]}; got {tuple(mask.shape)}"
            )
        return Mask(mask.to(y.device), image_shape=shape)

    def measured(y: Tensor) -> Tensor:
        # Holes may hold anything, NaN too.
        return torch.where(mask.to(y.device).bool(), y, torch.zeros_like(y))

    options = method_options(paper, PAPER, options)
    return ImageRecipe(prior, operator_of, noise_std, options, measured)
