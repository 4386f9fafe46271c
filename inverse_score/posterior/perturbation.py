"""Exact draws from p(x_0 | y) of a Gaussian x_0 with isotropic covariance, W = noise^-2."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from operators.linalg import per_item

from ..randomness import MEASUREMENT, OTHER, Noise
from .measurement import Measurement


def gaussian_draw(
    data: Measurement, mean: Tensor, variance: Any, noise: Noise, step: int
) -> Tensor:
    """x ~ N(mean + S A^T W (y - A mean), S), S = (A^T W A + I / v)^-1, of mean's shape.

    Perturb and solve (Papandreou & Yuille 2010): S (A^T W (y + n - A mean) + z / sqrt(v)) with
    n ~ N(0, noise^2), z ~ N(0, I) has exactly that law, in closed form where the operator solves
    in closed form, else by CG. variance v: a float or (B,); `step` names the draw of `noise`.
    """
    rho = 1 / torch.as_tensor(variance, dtype=mean.dtype, device=mean.device)
    z = per_item(rho.sqrt(), mean) * noise(mean, step, OTHER)
    b = data.gradient(mean) + data.white_adjoint(unit_noise(data.y, noise, step)) + z
    return mean + data.solve(b, rho)


def unit_noise(y: Tensor, noise: Noise, step: int) -> Tensor:
    """N(0, 1) of y's shape; of unit variance per real and imaginary part where y is complex."""
    if y.is_complex():
        return torch.view_as_complex(noise(torch.view_as_real(y), step, MEASUREMENT))
    return noise(y, step, MEASUREMENT)
