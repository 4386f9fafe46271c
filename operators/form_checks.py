"""The closed forms of an operator against dense matrices of real numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from .events import normal_draw
from .linear import Forms, LinearOperator
from .spectral import SVD, Transform

RHO = 0.3
# Singular values are kept in float32 where they are 0 and 1; a pseudo-inverse divides by the
# least of them. "fbp": a factor of <x, fbp(A x)> / <x, x>, for a smooth x.
LIMITS = {
    "svd": 1e-6,
    "row_gram": 1e-6,
    "transform": 1e-6,
    "solve": 1e-6,
    "pinv": 1e-4,
    "fbp": 1.5,
}
NEAR = (0.2, 5.0)  # the mean eigenvalue of P (A^T A + rho), 1 for an inverse


def as_real(v: Tensor) -> Tensor:
    """(B, numbers): complex entries as pairs, flattened per item."""
    v = torch.view_as_real(v) if v.is_complex() else v
    return v.reshape(v.shape[0], -1)


def columns(shape: tuple[int, ...], complex_: bool) -> Tensor:
    """Every unit vector of real numbers, (n, *shape)."""
    if not complex_:
        n = torch.Size(shape).numel()
        return torch.eye(n, dtype=torch.float64).reshape(n, *shape)
    pairs = columns((*shape, 2), False)
    return torch.view_as_complex(pairs)


class Probe:
    """One item of A as matrices of real numbers."""

    def __init__(self, A: LinearOperator, item: int):
        self.A, self.item = A, item
        self.x = columns(A.in_shape, A.in_complex)
        self.y = columns(A.out_shape, A.out_complex)
        self.D = as_real(self.at(len(self.x)).forward(self.x)).T

    def at(self, count: int) -> LinearOperator:
        """The operator of as many copies of the item."""
        return self.A if self.A.batch is None else self.A[[self.item] * count]

    def forms(self, v: Tensor) -> Forms:
        return self.at(len(v)).forms

    def matrix(self, form: Callable[[Forms], Any], v: Tensor) -> Tensor:
        """Of v -> form(forms)(v), over the unit vectors v."""
        return as_real(form(self.forms(v))(v)).T

    @property
    def one(self) -> Forms:
        return self.at(1).forms


def forms_gaps(A: LinearOperator, item: int = 0, seed: int = 0) -> dict[str, float]:
    """The relative gap of every form that A has; ValueError where one exceeds its limit."""
    P = Probe(A, item)
    forms, gaps = P.one, {}
    for name, check in _CHECKS.items():
        if getattr(forms, name) is None:
            continue
        gaps[name] = gap = check(P, seed)
        if not gap <= LIMITS[name]:
            raise ValueError(
                f"forms.{name} of {A!r} is not what A is: gap {gap:.2e} above {LIMITS[name]:g}"
            )
    if A.resolvent() is not None:
        gaps["resolvent"] = _resolvent_gap(P)
    return gaps


def _gap(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp_min(1e-300))


def _svd_gap(P: Probe, seed: int) -> float:
    """V orthogonal, U orthonormal where s > 0, A = U s V^T, A^T = V s U^T; entrywise if it says."""
    Vt = P.matrix(lambda f: cast(SVD, f.svd).Vt, P.x)
    z = _coefficients(P)
    V, U = P.matrix(lambda f: cast(SVD, f.svd).V, z), P.matrix(lambda f: cast(SVD, f.svd).U, z)
    Ut = P.matrix(lambda f: cast(SVD, f.svd).Ut, P.y)
    svd = _svd(P)
    if svd.s.ndim != z.ndim:
        raise ValueError(f"forms.svd.s must have z's {z.ndim} axes; got {tuple(svd.s.shape)}")
    s = svd.s.double().expand(1, *z.shape[1:]).reshape(-1)
    known = (s > 0).double()
    U = U * known
    pairs = [(Vt @ V, torch.eye(len(s)).double()), (V.T, Vt), (U.T @ U, torch.diag(known))]
    pairs += [(U * s @ Vt, P.D), (Ut, U.T)]
    if svd.entrywise:
        _check_entrywise("svd", U)
    return max(_gap(*pair) for pair in pairs)


def _svd(P: Probe) -> SVD:
    return cast(SVD, P.one.svd)


def _coefficients(P: Probe) -> Tensor:
    """Unit vectors of z, whose shape Vt tells."""
    return columns(tuple(_svd(P).Vt(P.x[:1]).shape[1:]), False)


def _check_entrywise(name: str, matrix: Tensor) -> None:
    used = matrix.abs() > 1e-9 * matrix.abs().max()
    if bool((used.sum(0) > 1).any() | (used.sum(1) > 1).any()):
        raise ValueError(f"forms.{name} is not entrywise: a number of y meets two coefficients")


def _row_gram_gap(P: Probe, seed: int) -> float:
    gram = cast(Tensor, P.one.row_gram)
    if gram.ndim != len(P.A.out_shape) + 1:
        raise ValueError(f"forms.row_gram must have y's axes; got {tuple(gram.shape)}")
    gram = gram.double().expand(1, *P.A.out_shape).reshape(-1)
    return _gap(torch.diag(gram.repeat_interleave(1 + P.A.out_complex)), P.D @ P.D.T)


def _transform_gap(P: Probe, seed: int) -> float:
    """embed(A x) = Lambda T x, T_inv T = 1 where exact; a row of embed may be as large as 1 / s."""
    T = P.matrix(lambda f: cast(Transform, f.transform).T, P.x)
    E = P.matrix(lambda f: cast(Transform, f.transform).embed, P.y)
    form = cast(Transform, P.one.transform)
    shape = form.T(P.x[:1]).shape[1:]
    mask = form.mask.double().expand(1, *shape).reshape(-1)
    if bool(((mask != 0) & (mask != 1)).any()):
        raise ValueError("forms.transform.mask must hold 0 and 1")
    scale = (E.norm(dim=1) * P.D.norm()).clamp_min(1.0)
    gap = float(((E @ P.D - mask[:, None] * T).norm(dim=1) / scale).max())
    if form.entrywise:
        _check_entrywise("transform", E)
    if not form.exact:
        return gap
    inverse = P.matrix(lambda f: cast(Transform, f.transform).T_inv, T.T.reshape(-1, *shape))
    return max(gap, _gap(inverse, torch.eye(len(P.x)).double()))


def _solve_gap(P: Probe, seed: int) -> float:
    """Without and with weights, which a formula may refuse; rho = 0 is the least norm."""
    weights = normal_draw((1, *P.A.out_shape), False, seed + 5).abs()
    gaps = [0.0]
    for W in (None, weights):
        x = P.forms(P.x).solve(P.x, RHO, W)  # type: ignore[misc]
        if x is None:
            continue
        w = torch.ones(1, *P.A.out_shape) if W is None else W
        N = P.D.T @ (_each_number(w, P)[:, None] * P.D)
        identity = torch.eye(len(N), dtype=torch.float64)
        gaps.append(_gap(as_real(x).T @ (N + RHO * identity), identity))
    return max(gaps)


def _each_number(weights: Tensor, P: Probe) -> Tensor:
    return weights.double().reshape(-1).repeat_interleave(1 + P.A.out_complex)


def _pinv_gap(P: Probe, seed: int) -> float:
    return _gap(P.matrix(lambda f: f.pinv, P.y), torch.linalg.pinv(P.D))


def _fbp_gap(P: Probe, seed: int) -> float:
    """How far <x, fbp(A x)> / <x, x> is from 1, as a factor, for a smooth x; fbp is linear."""
    *_, H, W = P.A.in_shape
    rows, at = torch.hann_window(H + 2)[1:-1], torch.hann_window(W + 2)[1:-1]
    x = torch.outer(rows, at).double().expand(1, *P.A.in_shape).contiguous()
    fbp = cast(Callable[[Tensor], Tensor], P.one.fbp)
    image = fbp(P.at(1).forward(x))
    share = float((x * image).sum() / (x * x).sum())
    return max(share, 1 / max(share, 1e-9))


def _resolvent_gap(P: Probe) -> float:
    """The asymmetry of what preconditions; it must be positive and of the inverse's size."""
    solve = P.at(len(P.x)).resolvent()
    if solve is None:
        return 0.0
    M = as_real(solve(RHO)(P.x)).T
    gap = _gap(M, M.T)
    if not gap <= 1e-6 or not float(torch.linalg.eigvalsh(M + M.T).min()) > 0:
        raise ValueError(f"resolvent of {P.A!r} is not symmetric and positive: gap {gap:.2e}")
    mean = float((M * (P.D.T @ P.D + RHO * torch.eye(len(M)))).sum() / len(M))
    if not NEAR[0] < mean < NEAR[1]:
        raise ValueError(f"resolvent of {P.A!r} is off by a factor of {mean:.2g}")
    return gap


_CHECKS: dict[str, Callable[[Probe, int], float]] = {
    "svd": _svd_gap,
    "row_gram": _row_gram_gap,
    "transform": _transform_gap,
    "solve": _solve_gap,
    "pinv": _pinv_gap,
    "fbp": _fbp_gap,
}
