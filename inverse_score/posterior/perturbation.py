"""Draws from p(x_0 | y) of a Gaussian x_0 with isotropic covariance, W = noise^-2."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from operators.linalg import inner, per_item

from ..randomness import CORRECTOR, MEASUREMENT, OTHER, Noise
from .measurement import LinearMeasurement, Measurement

LANGEVIN_STEPS = 50


def conditional_draw(
    data: Measurement,
    mean: Tensor,
    variance: float,
    noise: Noise,
    step: int,
    langevin: int | None = None,
) -> Tensor:
    """x ~ N(mean, v) p(y | x) / Z: exactly where A is linear, else by Langevin moves from mean.

    langevin: the number of moves; 0 the exact draw, None 0 for linear and 50 for other A.
    """
    moves = (0 if data.linear else LANGEVIN_STEPS) if langevin is None else int(langevin)
    if moves < 0 or (moves == 0 and not data.linear):
        raise ValueError(
            f"langevin must be >= 0, and positive where A is not linear; got {langevin}"
        )
    if isinstance(data, LinearMeasurement) and moves == 0:
        return gaussian_draw(data, mean, variance, noise, step)
    return langevin_draw(data, mean, variance, noise, step * moves, moves)


def gaussian_draw(
    data: LinearMeasurement, mean: Tensor, variance: Any, noise: Noise, step: int
) -> Tensor:
    """x ~ N(mean + S A^T W (y - A mean), S), S = (A^T W A + I / v)^-1, of mean's shape.

    Perturb and solve (Papandreou & Yuille 2010): S (A^T W (y + n - A mean) + z / sqrt(v)) with
    n ~ N(0, noise^2), z ~ N(0, I) has exactly that law, in closed form where the operator solves
    in closed form, else by CG. variance v: a float or (B,); `step` names the draw of `noise`.
    """
    rho = 1 / torch.as_tensor(variance, dtype=mean.dtype, device=mean.device)
    return mean + data.solve(data.gradient(mean) + _perturbation(data, mean, rho, noise, step), rho)


def gaussian_rest(
    data: LinearMeasurement, like: Tensor, variance: Any, noise: Noise, step: int = 0
) -> Tensor:
    """x ~ N(0, (A^T W A + I / v)^-1) of like's shape: `gaussian_draw` less its mean."""
    rho = 1 / torch.as_tensor(variance, dtype=like.dtype, device=like.device)
    return data.solve(_perturbation(data, like, rho, noise, step), rho)


def _perturbation(
    data: LinearMeasurement, like: Tensor, rho: Tensor, noise: Noise, step: int
) -> Tensor:
    """N(0, A^T W A + rho I): data's noise brought back, and the prior's."""
    z = per_item(rho.sqrt(), like) * noise(like, step, OTHER)
    return data.white_adjoint(unit_noise(data.y, noise, step)) + z


def langevin_draw(
    data: Measurement, mean: Tensor, variance: float, noise: Noise, first: int, moves: int
) -> Tensor:
    """x from `moves` Metropolis-adjusted Langevin moves on N(mean, v) p(y | x), from mean.

    x' = x + h grad log p + sqrt(2 h) z, taken or left item by item (Roberts & Tweedie 1996), so
    that any h leaves the law invariant; h = d^(-1/3) / (|A^T W A| + 1 / v), d numbers an item,
    |A^T W A| at mean. Needs the gradient of the likelihood alone, whatever A.
    """
    dim = mean[0].numel()
    h = per_item(dim ** (-1 / 3) / (data.at(mean).gain + 1 / variance), mean)
    x, log_p, drift = mean, *_target(data, mean, mean, variance)
    for j in range(first, first + moves):
        step = h * drift + (2 * h) ** 0.5 * noise(x, j, CORRECTOR)
        new_log_p, new_drift = _target(data, x + step, mean, variance)
        # log q(x | x') - log q(x' | x), q(x' | x) = N(x + h drift, 2 h).
        back = (step + h * new_drift) / (2 * h**0.5)
        forth = (step - h * drift) / (2 * h**0.5)
        log_ratio = new_log_p - log_p - inner(back, back) + inner(forth, forth)
        uniform = noise.uniform(x.new_empty(len(x), 1), j, MEASUREMENT)[:, 0]
        taken = uniform.log() < log_ratio
        each = taken.reshape(-1, *[1] * (x.ndim - 1))
        log_p, x = torch.where(taken, new_log_p, log_p), torch.where(each, x + step, x)
        drift = torch.where(each, new_drift, drift)
    return x


def _target(data: Measurement, x: Tensor, mean: Tensor, variance: float) -> tuple[Tensor, Tensor]:
    """log p(y | x) - |x - mean|^2 / (2 v), (B,), and its gradient."""
    log_p = data.log_likelihood(x) - inner(x - mean, x - mean) / (2 * variance)
    return log_p, data.gradient(x) + (mean - x) / variance


def unit_noise(y: Tensor, noise: Noise, step: int) -> Tensor:
    """N(0, 1) of y's shape; of unit variance per real and imaginary part where y is complex."""
    if y.is_complex():
        return torch.view_as_complex(noise(torch.view_as_real(y), step, MEASUREMENT))
    return noise(y, step, MEASUREMENT)
