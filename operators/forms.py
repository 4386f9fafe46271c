"""The closed forms of an operator as one value: what is known of A by formula.

`A.forms` holds them; an entry is None where there is no formula, so a method asks for what it
needs and says what is missing. Operators made of others transform the whole: `scaled`, `masked`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from .linalg import per_item
from .spectral import SVD, Map, Transform, pinv_by_rows, pinv_by_svd, solve_by_rows, solve_by_svd

Resolvent = Callable[[float | Tensor], Map]
Solve = Callable[[Tensor, float | Tensor, Tensor | None], Tensor | None]
Near = Callable[[Tensor | None], Resolvent | None]


class Pair(Protocol):
    """A(x) and A^T(y), without checks."""

    def forward(self, x: Tensor) -> Tensor: ...
    def adjoint(self, y: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Forms:
    """Formulas of A; None where there is none.

    family: what tables call A, the name of its class, which a factor or a mask leaves.
    row_gram: the diagonal of A A^T where the rest of it is 0, with y's number of axes.
    solve(b, rho, weights) -> (A^T W A + rho)^-1 b, or None for weights it cannot take; rho = 0
    gives the solution of least norm. pinv(y) -> A^+ y.
    near(weights) -> rho -> (b -> nearly (A^T W A + rho)^-1 b), symmetric and positive definite, to
    precondition with; or None for these weights. Absent where `solve` serves.
    fbp(y, filter): filtered backprojection. sense(x, y): the step S A_S^T (y - A_S S^T x) towards
    coil images of one image. svd and transform are made when they are first asked for.
    """

    family: str
    row_gram: Tensor | None = None
    solve: Solve | None = None
    pinv: Map | None = None
    near: Near | None = None
    fbp: Callable[..., Tensor] | None = None
    sense: Callable[[Tensor, Tensor], Tensor] | None = None
    make_svd: Callable[[], SVD] | None = None
    make_transform: Callable[[], Transform | None] | None = None

    @classmethod
    def of(
        cls,
        A: Pair,
        *,
        row_gram: Tensor | None = None,
        svd: Callable[[], SVD] | None = None,
        **known: Any,
    ) -> Forms:
        """Those of A, where what a diagonal A A^T or an svd implies need not be named."""
        implied: dict[str, Any] = {}
        if svd is not None:
            implied["make_transform"] = lambda: svd().transform
        if row_gram is not None or svd is not None:
            implied["solve"] = _solve_by(A, row_gram, svd)
        if row_gram is not None:
            implied["pinv"] = lambda y: pinv_by_rows(A.adjoint, row_gram, y)
        elif svd is not None:
            implied["pinv"] = lambda y: pinv_by_svd(svd(), y)
        return cls(type(A).__name__, row_gram, make_svd=svd, **{**implied, **known})

    @cached_property
    def svd(self) -> SVD | None:
        """A = U diag(s) V^T."""
        return None if self.make_svd is None else self.make_svd()

    @cached_property
    def transform(self) -> Transform | None:
        """A = P(Lambda) T (Song et al. 2022, section 3)."""
        return None if self.make_transform is None else self.make_transform()

    def scaled(self, a: float | Tensor) -> Forms:
        """The forms of a A, a a number or (B,); where a vanishes only what needs no inverse."""
        make_svd, make_transform = self.make_svd, self.make_transform
        gram = None if self.row_gram is None else self.row_gram * per_item(a**2, self.row_gram)
        svd = None if make_svd is None else lambda: make_svd().scaled(a)
        if bool((torch.as_tensor(a) == 0).any()):
            return Forms(self.family, gram, make_svd=svd)

        sense = self.sense

        def transform() -> Transform | None:
            whole = None if make_transform is None else make_transform()
            return None if whole is None else whole.scaled(a)

        return Forms(
            self.family,
            gram,
            solve=None if self.solve is None else _scaled_solve(self.solve, a),
            pinv=_divided(self.pinv, a),
            near=None if self.near is None else _scaled_near(self.near, a),
            fbp=_divided(self.fbp, a),
            sense=None if sense is None else lambda x, y: sense(x, y / per_item(a, y)),
            make_svd=svd,
            make_transform=transform,
        )

    def masked(self, keep: Tensor, *, out_complex: bool = False) -> Forms:
        """The forms of diag(keep) A, keep 0 or 1, (1 or B, *out_shape); whether y is complex.

        Where A A^T is diagonal (diag(keep) A)^+ = A^+ diag(keep); else the mask leaves none but
        what takes weights. A backprojection of measurements that are missing is no formula.
        """
        svd = self.svd if self.svd is not None and self.svd.entrywise else None
        svd = None if svd is None else svd.masked(keep, out_complex)
        gram = None if self.row_gram is None else self.row_gram * keep.to(self.row_gram)
        pinv = None if gram is None and svd is None else self.pinv
        make_transform = self.make_transform

        def transform() -> Transform | None:
            whole = None if make_transform is None else make_transform()
            if whole is None or not whole.entrywise:
                return None
            return whole.masked(keep, out_complex)

        return Forms(
            self.family,
            gram,
            solve=None if self.solve is None else _masked_solve(self.solve, keep, svd),
            pinv=None if pinv is None else lambda y: pinv(keep.to(y.real) * y),
            near=None if self.near is None else _masked_near(self.near, keep),
            make_svd=None if svd is None else lambda: svd,
            make_transform=transform,
        )


def _solve_by(A: Pair, row_gram: Tensor | None, svd: Callable[[], SVD] | None) -> Solve:
    """(A^T W A + rho)^-1 by the svd where W = I, else by a diagonal A A^T."""

    def solve(b: Tensor, rho: float | Tensor, weights: Tensor | None) -> Tensor | None:
        if weights is None and svd is not None:
            return solve_by_svd(svd(), b, rho)
        if row_gram is None:
            return None
        return solve_by_rows(A.forward, A.adjoint, row_gram, b, rho, weights)

    return solve


def _divided(form: Callable[..., Tensor] | None, a: float | Tensor) -> Callable[..., Tensor] | None:
    """What takes y, for y / a."""
    if form is None:
        return None
    return lambda y, *args, **options: form(y / per_item(a, y), *args, **options)


def _scaled_solve(inner: Solve, a: float | Tensor) -> Solve:
    """(a^2 A^T W A + rho)^-1 = (A^T W A + rho / a^2)^-1 / a^2."""

    def solve(b: Tensor, rho: float | Tensor, weights: Tensor | None) -> Tensor | None:
        square = a**2
        if isinstance(square, Tensor):
            square = square.to(b.real)
        return inner(b / per_item(square, b), rho / square, weights)

    return solve


def _scaled_near(inner: Near, a: float | Tensor) -> Near:
    def near(weights: Tensor | None) -> Resolvent | None:
        found = inner(weights)
        if found is None:
            return None
        square = a**2

        def at(rho: float | Tensor) -> Map:
            if isinstance(square, Tensor) and isinstance(rho, Tensor):
                solve = found(rho / square.to(rho))
            else:
                solve = found(rho / square)
            return lambda b: solve(b / per_item(square, b))

        return at

    return near


def _masked_solve(inner: Solve, keep: Tensor, svd: SVD | None) -> Solve:
    """A^T keep W keep A = A^T (keep W) A; by the masked svd where A's formula takes no weights."""

    def solve(b: Tensor, rho: float | Tensor, weights: Tensor | None) -> Tensor | None:
        x = inner(b, rho, _both(keep, weights))
        if x is None and weights is None and svd is not None:
            return solve_by_svd(svd, b, rho)
        return x

    return solve


def _masked_near(inner: Near, keep: Tensor) -> Near:
    return lambda weights: inner(_both(keep, weights))


def _both(keep: Tensor, weights: Tensor | None) -> Tensor:
    return keep if weights is None else keep.to(weights) * weights
