"""The path that every scan recipe takes: a problem in the prior's units, solve, back to units."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from inverse_score.posterior.covariance import pixel_variance
from inverse_score.posterior.measurement import Measurement
from inverse_score.posterior.methods import METHODS
from inverse_score.posterior.units import measure
from inverse_score.prior import Prior
from inverse_score.solver import Reconstruction, solve
from operators.linear import LinearOperator

SAMPLES = 8


def samples_of(options: dict[str, Any]) -> int:
    """How many samples a recipe draws where nobody says: 8, and 1 of a method with one answer."""
    method = METHODS.get(options.get("method", "auto"))
    return 1 if method is not None and method.deterministic else SAMPLES


@dataclass(frozen=True)
class Problem:
    """y = A u + n of one or more slices, u in the prior's data units, image = scale * u.

    noise_std is in units of y; first_look (B, *event) is the image that people compare with
    (zero-filled, or filtered back-projection), in the image's units. facts are plain numbers.
    """

    operator: LinearOperator
    y: Tensor
    noise_std: float | Tensor
    scale: Tensor
    first_look: Tensor
    facts: dict[str, Any] = field(default_factory=dict)

    def solve(self, prior: Prior, num_samples: int | None = None, **options: Any) -> Reconstruction:
        """Samples, mean and std in the image's units; misfit and prior share need none."""
        count = samples_of(options) if num_samples is None else num_samples
        rec = solve(
            self.y, self.operator, prior, noise_std=self.noise_std, num_samples=count, **options
        )
        # What is linear in the image carries its unit; misfit and prior share have none.
        if rec.samples is None:
            return replace(rec, streamed=tuple(map(self.to_units, rec.streamed)))  # type: ignore[arg-type]
        return replace(rec, samples=self.to_units(rec.samples))

    def to_units(self, u: Tensor) -> Tensor:
        """scale * u, of any shape (..., B, *event)."""
        return u * self.scale.to(u).reshape(-1, *[1] * len(self.operator.in_shape))

    def residual(self, x: Tensor) -> Tensor:
        """A^T (y - A u) in the image's units, for x (B, *event) in them."""
        u = x / self.to_units(torch.ones_like(x))
        return self.to_units(self.operator.T(self.y - self.operator(u)))

    def misfit(self, x: Tensor) -> Tensor:
        """(B,): |y - A u|^2 / (noise_std^2 num_measured) of x (B, *event) in the image's units."""
        data = Measurement(self.operator, self.y, self.noise_std)
        u = x / self.to_units(torch.ones_like(x))
        count = torch.as_tensor(self.operator.num_measured, device=u.device)
        return -2 * data.log_likelihood(u) / count

    def at_scale(self, scale: float) -> Problem:
        """The same problem with u in units of this scale: y and its noise follow."""
        ratio = self.scale / scale

        def rescaled(v: Tensor) -> Tensor:
            return v * ratio.to(v.real).reshape(-1, *[1] * (v.ndim - 1))

        noise_std = self.noise_std
        if not isinstance(noise_std, Tensor) or noise_std.ndim == 0:
            noise_std = torch.as_tensor(noise_std, dtype=ratio.dtype).expand(len(self.y))
        return replace(
            self,
            y=rescaled(self.y),
            noise_std=rescaled(noise_std),
            scale=torch.full_like(self.scale, scale),
            facts={**self.facts, "scale": [scale] * len(self.y)},
        )

    def prior_part(self, x: Tensor, prior: Prior) -> Tensor:
        """x - R x, R = (A^T W A + I / v)^-1 A^T W A: what the data did not determine of x.

        x (B, *event) in the image's units; W and v as in `Reconstruction.prior_share`, whose map
        this is.
        """
        data = measure(prior, self.y, self.operator, self.noise_std)
        v = pixel_variance(prior, tuple(x.shape[1:]))
        return data.solve(x, 1 / v, tol=1e-3, max_iter=50) / v
