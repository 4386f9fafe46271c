"""A stack of slices reconstructed as one volume, held together along z."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from inverse_score.errors import BadInput
from inverse_score.prior import SliceWise
from inverse_score.solver import Reconstruction
from operators.volume import EachSlice, ItemWise

from .problem import Problem


def volume(recipe: Any, between_slices: float, **options: Any) -> CoupledSlices:
    """recipes.volume(recipes.ct(prior, radon), 30.0)(sinograms): the slices as one volume.

    recipe: a scan recipe, such as `mri` or `ct`, whose prior is of single slices. between_slices:
    the mean |difference| of neighbouring slices of such volumes at this spacing, in the prior's
    data units (HU; for MRI shares of the scale), which is how strongly "dds" holds them together
    (Chung et al. 2023; Chung, Lee & Ye 2024). options go to `inverse_score.solve`: penalty "tv" or
    "quadratic", steps, ...
    """
    if not between_slices > 0:
        raise ValueError(f"between_slices must be positive; got {between_slices}")
    return CoupledSlices(recipe, float(between_slices), options)


@dataclass(frozen=True)
class CoupledSlices:
    """A scan recipe and how much neighbouring slices differ; see `volume`."""

    recipe: Any
    between_slices: float
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(
        self, slices: Tensor, num_samples: int = 2, seed: int = 0, **options: Any
    ) -> Reconstruction:
        """Samples (num_samples, 1, C, D, H, W) of what the recipe measures as slices (D, ...)."""
        prior = self.recipe.prior
        coupling = {"method": "dds", "between_slices": self.between_slices / prior.range[0]}
        options = {**coupling, **self.recipe.options, **self.options, **options}
        whole = as_volume(self.recipe.prepare(slices))
        return whole.solve(SliceWise(prior), num_samples=num_samples, seed=seed, **options)


def at_one_scale(problems: Sequence[Problem]) -> list[Problem]:
    """Problems of a slice each, in units of the median of their scales."""
    scale = float(torch.cat([problem.scale for problem in problems]).double().median())
    if all(bool((problem.scale == scale).all()) for problem in problems):
        return list(problems)
    return [problem.at_scale(scale) for problem in problems]


def stacked(problems: Sequence[Problem]) -> Problem:
    """One problem whose items are these slices, each a problem of one; see `as_volume`."""
    first = problems[0]
    noise_std = [torch.as_tensor(problem.noise_std) for problem in problems]
    if noise_std[0].ndim == 0:
        noise_std = [value[None] for value in noise_std]
    return replace(
        first,
        operator=ItemWise([problem.operator for problem in problems]),
        y=torch.cat([problem.y for problem in problems]),
        noise_std=torch.cat(noise_std),
        scale=torch.cat([problem.scale for problem in problems]),
        first_look=torch.cat([problem.first_look for problem in problems]),
    )


def as_volume(problem: Problem) -> Problem:
    """The problem of one item whose slices are the items of `problem`."""
    scale = problem.scale
    if not bool((scale == scale[0]).all()):
        raise BadInput(
            "the slices of a volume need one scale, or their differences along z mean nothing; "
            f"give the recipe scale= (this stack has {float(scale.min()):.4g} to "
            f"{float(scale.max()):.4g})"
        )
    noise_std = problem.noise_std
    if isinstance(noise_std, Tensor) and noise_std.ndim > 0:
        if noise_std.ndim == 1:
            noise_std = noise_std.reshape(-1, *[1] * len(problem.operator.out_shape))
        noise_std = noise_std[None]
    return replace(
        problem,
        operator=EachSlice(problem.operator, len(problem.y)),
        y=problem.y[None],
        noise_std=noise_std,
        scale=scale[:1],
        first_look=torch.movedim(problem.first_look, 0, 1)[None],
    )
