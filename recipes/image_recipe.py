"""What the image recipes share: an operator made for the image at hand, solve, exact data kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inverse_score.errors import BadInput, BadPrior
from inverse_score.io.priors import load_prior
from inverse_score.posterior import LinearMeasurement
from inverse_score.prior import Prior
from inverse_score.solver import Reconstruction, solve
from operators.linear import LinearOperator

from .problem import samples_of

# y (B, ...) -> the operator that measured it.
OperatorOf = Callable[[Tensor], LinearOperator]


@dataclass(frozen=True)
class ImageRecipe:
    """A prior and a way to measure; call it with what was measured.

    operator_of(y) makes the operator for y (B, ...); noise_std is in units of y, 0 for exact data.
    options go to `inverse_score.solve`. Data units are the prior's: [0, 1] for those that ship.
    """

    prior: Prior
    operator_of: OperatorOf
    noise_std: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)
    # What of the input was measured: inpainting blanks the holes.
    measured: Callable[[Tensor], Tensor] = lambda y: y
    # y is itself a picture, so a single one may come without its batch axis.
    images: bool = True

    def __call__(
        self,
        y: Tensor,
        num_samples: int | None = None,
        seed: int = 0,
        items: Sequence[int] | None = None,
        **options: Any,
    ) -> Reconstruction:
        """Samples (num_samples, B, C, H, W) given y (B, ...), or one item (C, H, W) of it.

        num_samples: default 8, and 1 of a method with one answer.
        Exact data (noise_std 0) hold exactly in every sample: x + A^+ (y - A x).
        """
        y = torch.as_tensor(y)
        if not y.is_floating_point():
            raise BadInput(f"the image must be floating point in the prior's units; got {y.dtype}")
        y = y[None] if y.ndim == 3 and self.images else y
        operator, y = self.operator_of(y), self.measured(y)
        options = {**self.options, **options}
        rec = solve(
            y,
            operator,
            self.prior,
            noise_std=self.noise_std,
            num_samples=samples_of(options) if num_samples is None else num_samples,
            seed=seed,
            items=items,
            **options,
        )
        return _made_exact(rec, operator, y) if self.noise_std == 0 else rec


def _made_exact(rec: Reconstruction, operator: LinearOperator, y: Tensor) -> Reconstruction:
    """Every sample on A x = y in data units, where what held in u is rounded."""
    if rec.samples is None:
        return rec
    data = LinearMeasurement(operator, y, 0.0)
    samples = torch.stack([data.project(x) for x in rec.samples])
    misfit = torch.stack([data.misfit(x) for x in samples])
    return replace(rec, samples=samples, misfit=misfit, misfit_mean=data.misfit(samples.mean(0)))


def image_prior(prior: Prior | str | Path, channels: int | None = None) -> Prior:
    """The prior, loaded if it is a name or a file; BadPrior unless it has so many channels."""
    loaded = load_prior(prior)
    if channels is not None and loaded.channels not in (None, channels):
        raise BadPrior(f"this needs a prior of {channels} channels; it has {loaded.channels}")
    return loaded


def method_options(paper: bool, papers: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """The paper's method where asked for, else the recommended one; explicit options win."""
    return {**(papers if paper else {"method": "auto"}), **options}
