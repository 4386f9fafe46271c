"""The measurement y = A(u) + n of a forward model that is not linear."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from operators.nonlinear import NonlinearOperator, Rescaled, newton_data

from ..prior import Prior
from ..randomness import Noise
from ..sampling.driver import start
from .measurement import Measurement


class NonlinearMeasurement(Measurement):
    """y = A(u) + n; what methods of gradients need: residual, gradient, misfit, and `at`.

    gain, level and typical are those of the linearization about `reference` (1, *in_shape), the
    prior's mean: the grid of times ends by them.
    """

    linear = False

    def __init__(
        self,
        operator: NonlinearOperator,
        y: Tensor,
        noise_std: float | Tensor,
        reference: Tensor,
    ):
        super().__init__(operator, y, noise_std)  # type: ignore[arg-type]
        self.reference = reference

    def at(self, u: Tensor) -> Measurement:
        """The linearization about u: y - A(u) + J u = J x + n, J the derivative at u."""
        J, y = newton_data(self.operator, u, self.y)  # type: ignore[arg-type]
        return Measurement(J, y, self.noise_std)

    def pullback(self, u: Tensor, r: Tensor) -> Tensor:
        return self.operator.linearize(u).T(r)  # type: ignore[attr-defined]

    def gradient(self, u: Tensor) -> Tensor:
        """J^T W (y - A(u)), the gradient of the log-likelihood."""
        return self.pullback(u, self.weights * self.residual(u))

    @cached_property
    def _about(self) -> Measurement:
        return self.at(self.reference.expand(len(self), *self.operator.in_shape))

    @cached_property
    def gain(self) -> Tensor:
        return self._about.gain

    @cached_property
    def typical(self) -> Tensor:
        return self._about.typical

    def rows(self, index: Sequence[int]) -> Measurement:
        index = list(index)
        operator = self.operator if self.operator.batch is None else self.operator[index]
        return NonlinearMeasurement(operator, self.y[index], self.noise_std[index], self.reference)


def measure_nonlinear(
    prior: Prior, y: Tensor, operator: NonlinearOperator, noise_std: Any
) -> NonlinearMeasurement:
    """The measurement of u, x = scale u + offset; y and noise_std keep their units."""
    scale, offset = prior.range
    if (scale, offset) != (1.0, 0.0):
        operator = Rescaled(operator, scale, offset)
    like = torch.empty(1, *operator.in_shape, dtype=y.dtype, device=y.device)
    xT = start(prior, like.shape, Noise(0, [0]), dtype=y.dtype, device=y.device)
    with torch.no_grad():
        reference = prior.denoise(xT, prior.sde.T)
    return NonlinearMeasurement(operator, y, noise_std, reference)


def linear_only(name: str, able: Sequence[str]) -> ValueError:
    """The error of a method that cannot take a nonlinear operator."""
    return ValueError(
        f"{name!r} needs a linear operator (its adjoint, solves or pseudo-inverse); methods for "
        f"nonlinear ones: {', '.join(able)}"
    )
