"""Conjugate gradients, power iteration and per-item inner products; items of a batch never meet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, overload

import torch
from torch import Tensor


def inner(u: Tensor, v: Tensor) -> Tensor:
    """<u, v> = Re sum(conj(u) v) of each item: (B, *event) twice -> (B,)."""
    if u.is_complex() or v.is_complex():
        u, v = (w if w.is_complex() else torch.complex(w, torch.zeros_like(w)) for w in (u, v))
        u, v = torch.view_as_real(u), torch.view_as_real(v)
    return (u * v).flatten(1).sum(1)


@overload
def per_item(value: Tensor, like: Tensor) -> Tensor: ...
@overload
def per_item(value: float, like: Tensor) -> float: ...
def per_item(value: float | Tensor, like: Tensor) -> float | Tensor:
    """A scalar as it is; a tensor (B,) as (B, 1, ..., 1), in the real dtype and device of like."""
    if not isinstance(value, Tensor):
        return float(value)
    value = value.to(device=like.device, dtype=like.real.dtype)
    return value if value.ndim == 0 else value.reshape(-1, *[1] * (like.ndim - 1))


@dataclass(frozen=True)
class SolveInfo:
    """What a solve took, one entry an item; a closed form has 0 iterations and residual 0.

    iterations: (B,) int64; residual: (B,) |b - M x| / |b| as the recurrence tracks it, in the norm
    that CG used; converged: (B,) bool, whether the residual reached the tolerance.
    """

    iterations: Tensor
    residual: Tensor
    converged: Tensor

    @classmethod
    def closed_form(cls, b: Tensor) -> SolveInfo:
        """The report of a solution by formula."""
        zero = torch.zeros(b.shape[0], device=b.device)
        return cls(zero.long(), zero, zero == 0)


def default_tolerance(dtype: torch.dtype) -> float:
    """The relative residual that CG aims at when none is named: 1e-6, or 1e-12 in float64."""
    return 1e-12 if dtype in (torch.float64, torch.complex128) else 1e-6


def conjugate_gradient(
    matrix: Callable[[Tensor], Tensor],
    b: Tensor,
    *,
    x0: Tensor | None = None,
    precondition: Callable[[Tensor], Tensor] | None = None,
    tol: float | Tensor | None = None,
    rms: float | Tensor = 0.0,
    max_iter: int = 100,
) -> tuple[Tensor, SolveInfo]:
    """Solve M x = b for symmetric positive (semi)definite M by Hestenes & Stiefel (1952).

    Each item has its own step sizes and stops for itself at |b - M x| <= tol |b|, or earlier where
    the root mean square of b - M x is down to `rms`, so an item's result does not depend on the
    batch; tol and rms are numbers or (B,). precondition: r -> P r, P symmetric and positive
    definite, near M^-1; lengths then are |r|_P = <r, P r>^1/2. From x0 = None (zero) and b in the
    range of a singular M the limit is the solution of least norm (that of P^-1). b: (B, *event),
    real or complex with the real inner product.
    """
    tol = default_tolerance(b.dtype) if tol is None else tol
    x = torch.zeros_like(b) if x0 is None else x0.clone()
    r = b.clone() if x0 is None else b - matrix(x)
    apply = precondition or (lambda v: v)
    z = apply(r)
    p = z.clone()
    rz = inner(r, z)
    size = rz if x0 is None else inner(b, apply(b))
    enough = torch.maximum(tol**2 * size, torch.as_tensor(rms).to(rz) ** 2 * b[0].numel())
    iterations = torch.zeros(b.shape[0], dtype=torch.int64, device=b.device)
    active = rz > enough
    for _ in range(max_iter):
        if not bool(active.any()):
            break
        Mp = matrix(p)
        curvature = inner(p, Mp)
        # No curvature left: the rest of b lies outside the range of M.
        active = active & (curvature > 0)
        alpha = torch.where(active, rz / curvature.clamp_min(_tiny(rz)), 0.0)
        x = x + per_item(alpha, x) * p
        r = r - per_item(alpha, x) * Mp
        z = apply(r)
        new = torch.where(active, inner(r, z), rz)
        beta = torch.where(active, new / rz.clamp_min(_tiny(rz)), 0.0)
        p = z + per_item(beta, x) * p
        rz = new
        iterations += active
        active = active & (rz > enough)
    residual = (rz / size.clamp_min(_tiny(rz))).sqrt()
    return x, SolveInfo(iterations, residual, rz <= enough)


def _tiny(like: Tensor) -> float:
    return torch.finfo(like.dtype).tiny


class _SymmetricSolve(torch.autograd.Function):
    """x = M^-1 b; since M is symmetric the gradient with respect to b is M^-1 of the gradient."""

    @staticmethod
    def forward(ctx: Any, b: Tensor, solve: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.solve = solve
        return solve(b)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor, None]:
        return _SymmetricSolve.apply(grad, ctx.solve), None


def implicit_solve(solve: Callable[[Tensor], Tensor], b: Tensor) -> Tensor:
    """solve(b) for a symmetric system, differentiable in b without storing the iterations."""
    return _SymmetricSolve.apply(b, solve)


def power_norm(
    normal: Callable[[Tensor], Tensor], start: Tensor, *, tol: float, max_iter: int
) -> Tensor:
    """sqrt of the largest eigenvalue of A^T A, (B,), by power iteration from start (B, *event).

    Stops when no item's Rayleigh quotient changes by more than tol relative; from below.
    """
    v, value = start, torch.zeros(start.shape[0], dtype=start.real.dtype, device=start.device)
    for _ in range(max_iter):
        v = v / per_item(inner(v, v).sqrt().clamp_min(_tiny(value)), v)
        w = normal(v)
        new = inner(v, w)
        done = bool(((new - value).abs() <= tol * new.abs()).all())
        v, value = w, new
        if done:
            break
    return value.clamp_min(0).sqrt()
