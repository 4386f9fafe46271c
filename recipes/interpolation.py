"""Interpolation: images between two images, along the prior's latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inverse_score.errors import BadInput
from inverse_score.likelihood import encode, interpolate
from inverse_score.prior import Prior
from inverse_score.sampling import sample

from .image_recipe import image_prior


def interpolation(
    prior: Prior | str | Path, first: Tensor, last: Tensor, count: int = 8, **options: Any
) -> Tensor:
    """(count, *event) from first to last, both ends included, in the prior's data units.

    Both are encoded by the probability-flow ODE, their latents joined by an arc of a great circle
    (which keeps the norm that N(0, I) has in high dimension; Song et al. 2021, sec. D.3), and
    decoded by the same ODE. options go to the decoding `sample`.
    """
    prior = image_prior(prior)
    if first.shape != last.shape:
        raise BadInput(
            f"the images must have one shape; got {tuple(first.shape)}, {tuple(last.shape)}"
        )
    if count < 2:
        raise ValueError(f"count must be at least 2, the two ends; got {count}")
    a, b = encode(torch.stack([first, last]), prior).split(1)
    latents = torch.cat([interpolate(a, b, w / (count - 1)) for w in range(count)])
    return sample(prior, tuple(latents.shape), method="ode", latents=latents, **options)
