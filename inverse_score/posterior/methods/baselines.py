"""Reconstructions without a learned prior, under the same call: what a posterior has to beat.

All of them work in the prior's units u, about its offset. Their one strength is chosen item by
item by cross-validation, so that none is handicapped: a random tenth of the measured numbers is
withheld, and the strength that predicts them best is used on all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from operators.linalg import inner, per_item

from ...prior import Prior
from ...randomness import OTHER, Noise
from ..covariance import pixel_variance
from ..measurement import LinearMeasurement
from ..method import Course, Method, NoOptions, Walk, check_count, check_positive
from ..wavelets import levels, psi, psi_inverse

# Factors on each method's own scale, two a decade.
STRENGTHS = tuple(10 ** (k / 2) for k in range(-4, 3))


def zero_filled(
    prior: Prior, data: LinearMeasurement, noise: Noise, walk: Walk, options: NoOptions
) -> Tensor:
    """A^T y."""
    return data.operator.T(data.y)


def pseudo_inverse(
    prior: Prior, data: LinearMeasurement, noise: Noise, walk: Walk, options: NoOptions
) -> Tensor:
    """A^+ y, the least-squares solution of least norm."""
    return data.pinv(data.y)


def filtered_back_projection(
    prior: Prior, data: LinearMeasurement, noise: Noise, walk: Walk, options: NoOptions
) -> Tensor:
    """The operator's own fbp(y)."""
    fbp = data.operator.forms.fbp
    if fbp is None:
        raise ValueError(
            f'{type(data.operator).__name__} has no fbp; "pinv" and "tikhonov" take any operator'
        )
    return fbp(data.y)


@dataclass(frozen=True)
class Strength:
    """strength: on the method's own scale; None each item's best by cross-validation."""

    strength: float | None = None

    def __post_init__(self) -> None:
        check_positive("strength", self.strength)


def tikhonov(
    prior: Prior, data: LinearMeasurement, noise: Noise, walk: Walk, options: Strength
) -> Tensor:
    """argmin |y - A u|_W^2 + (strength / v) |u|^2, v the prior's pixel variance (CG-SENSE)."""
    return _fitted(_ridge(prior), data, options.strength)


@dataclass(frozen=True)
class TotalVariation(Strength):
    """As of `total_variation`."""

    iterations: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("iterations", self.iterations)


def total_variation(
    prior: Prior, data: LinearMeasurement, noise: Noise, walk: Walk, options: TotalVariation
) -> Tensor:
    """argmin |y - A u|_W^2 / 2 + (strength / b) sum |grad u|  (Rudin, Osher & Fatemi 1992).

    |grad u| couples both differences and all channels, hence a complex image's parts; b is the
    mean |grad| of the solution for strength 1 of "tikhonov". Primal-dual steps of Chambolle &
    Pock 2011, alg. 1.
    """
    start = _ridge(prior)
    b = _length(_gradient(start(data))).flatten(1).mean(1).clamp_min(1e-12)

    def fit(part: LinearMeasurement, factor: Tensor) -> Tensor:
        return _primal_dual(part, start(part), factor / b, options.iterations)

    return _fitted(fit, data, options.strength)


@dataclass(frozen=True)
class Wavelet(Strength):
    """As of `wavelet`."""

    iterations: int = 60

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("iterations", self.iterations)


def wavelet(
    prior: Prior, data: LinearMeasurement, noise: Noise, walk: Walk, options: Wavelet
) -> Tensor:
    """argmin |y - A u|_W^2 / 2 + (strength / b) |Psi u|_1, Psi Daubechies-4, cycle-spun.

    ADMM (Boyd et al. 2011) whose proximal step shifts the image differently each time (cycle
    spinning, Coifman & Donoho 1995). Two channels shrink as one complex coefficient;
    the coarsest band does not shrink. b is the mean coefficient of the Tikhonov solution.
    """
    start = _ridge(prior)
    b = _magnitude(psi(start(data))).flatten(1).mean(1).clamp_min(1e-12)

    def fit(part: LinearMeasurement, factor: Tensor) -> Tensor:
        return _admm(part, start(part), factor / b, b, options.iterations)

    return _fitted(fit, data, options.strength)


def _ridge(prior: Prior) -> Callable[..., Tensor]:
    """(A^T W A + (factor / v) I)^-1 A^T W y, v the prior's pixel variance.

    Starts of iterations see only the data at hand, or cross-validation would look at its answers.
    """
    variance: list[float] = []

    def solve(part: LinearMeasurement, factor: Any = 1.0) -> Tensor:
        if not variance:
            variance.append(pixel_variance(prior, part.operator.in_shape, part.y.real.dtype))
        return part.solve(part.backproject(part.y), factor / variance[0])

    return solve


def _fitted(
    fit: Callable[[LinearMeasurement, Tensor], Tensor],
    data: LinearMeasurement,
    strength: float | None,
) -> Tensor:
    """fit(data, strength), strength the user's or each item's best one."""
    return fit(data, _chosen(fit, data, strength))


def _chosen(
    fit: Callable[[LinearMeasurement, Tensor], Tensor],
    data: LinearMeasurement,
    strength: float | None,
) -> Tensor:
    """(B,): the user's strength, or each item's best one by its withheld measurements."""
    like = data.gain
    if strength is not None:
        return torch.full_like(like, float(strength))
    u = Noise(0, [0]).uniform(data.y.real[:1], 0, OTHER)
    keep = (u >= 0.1).to(data.y.real.dtype)
    part, errors = data.masked(keep), []
    for factor in STRENGTHS:
        e = (
            (1 - keep)
            * data.weights.sqrt()
            * data.residual(fit(part, torch.full_like(like, factor)))
        )
        errors.append(inner(e, e))
    best = torch.stack(errors).argmin(0)
    return torch.tensor(STRENGTHS, dtype=like.dtype, device=like.device)[best]


def _primal_dual(data: LinearMeasurement, first: Tensor, lam: Tensor, iterations: int) -> Tensor:
    """u' = prox_f(u - tau D^T p), p <- P(p + s D (2 u' - u)), tau s |D|^2 = 1, |D|^2 = 8.

    prox_f is the operator's own solve. tau balances a primal step of |grad u| against a dual one
    of lam.
    """
    scale = first.flatten(1).std(1).clamp_min(1e-12)
    tau = scale * _length(_gradient(first)).flatten(1).mean(1).clamp_min(1e-12)
    step, limit = per_item(1 / (8 * tau), first[:, None]), per_item(lam, first[:, None])
    target, weight = data.backproject(data.y), per_item(1 / tau, first)
    u, p = first, torch.zeros_like(_gradient(first))
    for _ in range(iterations):
        v = u - _gradient_adjoint(p) / weight
        new = data.solve(target + weight * v, 1 / tau, x0=u, tol=1e-4, max_iter=10)
        p = p + step * _gradient(2 * new - u)
        p = p / (_length(p) / limit).clamp_min(1.0)
        u = new
    return u


def _admm(
    data: LinearMeasurement, first: Tensor, lam: Tensor, b: Tensor, iterations: int
) -> Tensor:
    """u = (N + rho)^-1 (A^T W y + rho (z - d)), z = Psi^T soft(Psi (u + d), b), d <- d + u - z."""
    rho = lam / b
    target, weight, limit = data.backproject(data.y), per_item(rho, first), per_item(b, first)
    u, z, d = first, first, torch.zeros_like(first)
    for k in range(iterations):
        u = data.solve(target + weight * (z - d), rho, x0=u, tol=1e-4, max_iter=10)
        # A low-discrepancy sequence of shifts visits all offsets of the coarsest cell evenly.
        shift = (int(16 * ((k * 0.7548776662) % 1)), int(16 * ((k * 0.5698402910) % 1)))
        moved = torch.roll(u + d, shift, dims=(-2, -1))
        z = torch.roll(_shrink(moved, limit), (-shift[0], -shift[1]), dims=(-2, -1))
        d = d + u - z
    return u


def _shrink(x: Tensor, limit: Any) -> Tensor:
    """Psi^T soft(Psi x), details only; odd sizes are extended by one line meanwhile."""
    H, W = x.shape[-2:]
    padded = torch.nn.functional.pad(x, (0, W % 2, 0, H % 2), mode="replicate")
    z = psi(padded)
    size = _magnitude(z)
    kept = z * (1 - limit / size.clamp_min(1e-30)).clamp_min(0.0)
    h, w = (n >> levels(padded.shape[-2:]) for n in padded.shape[-2:])
    kept[..., :h, :w] = z[..., :h, :w]
    return psi_inverse(kept)[..., :H, :W]


def _magnitude(z: Tensor) -> Tensor:
    """|z| of complex coefficients for two channels, of each channel else."""
    return z.norm(dim=1, keepdim=True) if z.shape[1] == 2 else z.abs()


def _gradient(u: Tensor) -> Tensor:
    """Forward differences down and across, zero past the border: (B, 2, C, H, W)."""
    down = torch.zeros_like(u)
    across = torch.zeros_like(u)
    down[..., :-1, :] = u[..., 1:, :] - u[..., :-1, :]
    across[..., :-1] = u[..., 1:] - u[..., :-1]
    return torch.stack([down, across], 1)


def _gradient_adjoint(p: Tensor) -> Tensor:
    """The transpose of `_gradient`."""
    down, across = p[:, 0], p[:, 1]
    u = torch.zeros_like(down)
    u[..., :-1, :] -= down[..., :-1, :]
    u[..., 1:, :] += down[..., :-1, :]
    u[..., :-1] -= across[..., :-1]
    u[..., 1:] += across[..., :-1]
    return u


def _length(p: Tensor) -> Tensor:
    """|p| over both differences and the channels: (B, 1, 1, H, W)."""
    return p.square().sum((1, 2), keepdim=True).sqrt()


def _baseline(name: str, draw: Callable[..., Tensor], options: type[Any] = NoOptions) -> Method:
    return Method(
        name,
        options,
        draw,
        Course(None),
        calls=lambda options, steps: 0,
        needs_noise=False,
        deterministic=True,
    )


METHODS = (
    _baseline("zero-filled", zero_filled),
    _baseline("fbp", filtered_back_projection),
    _baseline("pinv", pseudo_inverse),
    _baseline("tikhonov", tikhonov, Strength),
    _baseline("tv", total_variation, TotalVariation),
    _baseline("wavelet", wavelet, Wavelet),
)
