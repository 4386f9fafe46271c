"""Closed forms: singular value decompositions, A = P(Lambda) T, and the solves they give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .linalg import per_item

if TYPE_CHECKING:
    from .linear import LinearOperator

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class SVD:
    """A = U diag(s) V^T, with real coefficients z (B, *shape) of as many numbers as x has.

    Vt(x) and V(z) are orthogonal and inverse to each other. s >= 0 has as many axes as z and
    broadcasts to it; its first axis is 1, or B where parameters are per item. U(z) reads only
    the entries where s > 0; Ut(y) is U^T y and zero where s = 0. So A x = U(s * Vt(x)) and
    A^T y = V(s * Ut(y)).
    """

    s: Tensor
    V: Map
    Vt: Map
    U: Map
    Ut: Map

    def scaled(self, factor: float | Tensor) -> SVD:
        """The decomposition of factor * A, factor a scalar or (B,)."""
        a = torch.as_tensor(factor)
        sign = a.sign()

        def signed(v: Tensor) -> Tensor:
            return per_item(sign, v) * v

        s = self.s * per_item(a.abs(), self.s)
        return SVD(s, self.V, self.Vt, lambda z: signed(self.U(z)), lambda y: signed(self.Ut(y)))


@dataclass(frozen=True)
class Transform:
    """A = P(Lambda) T with T invertible (Song et al. 2022, section 3): z = T x.

    T(x) -> z and T_inv(z) -> x; mask: the diagonal of Lambda, 0 or 1, broadcastable to z;
    embed(y): P(Lambda)^-1 y, the known coefficients of z in place, zeros elsewhere.
    exact: whether T_inv is the inverse to rounding (false for CT, where it is FBP).
    """

    T: Map
    T_inv: Map
    mask: Tensor
    embed: Map
    exact: bool = True


def transform_of(svd: SVD) -> Transform:
    """T = V^T and Lambda = [s > 0]: the known coefficients are U^T y / s."""

    def embed(y: Tensor) -> Tensor:
        s = svd.s.to(y.device)
        return svd.Ut(y) * inverse(s).to(y.real.dtype)

    return Transform(svd.Vt, svd.V, (svd.s > 0).to(svd.s.dtype), embed)


def rank_cutoff(dtype: torch.dtype) -> float:
    """Singular values below this share of the largest are taken for rounding: 1000 eps."""
    return 1e3 * torch.finfo(dtype).eps


def inverse(s: Tensor, cutoff: float = 0.0) -> Tensor:
    """1 / s where s exceeds cutoff * max(s), else 0."""
    kept = s > cutoff * s.amax()
    return torch.where(kept, 1 / torch.where(kept, s, 1.0), 0.0)


def solve_normal(
    A: LinearOperator, b: Tensor, rho: float | Tensor, weights: Tensor | None
) -> Tensor | None:
    """(A^T W A + rho I)^-1 b by A's svd or its diagonal A A^T; None where A has neither.

    rho = 0 gives the solution of least norm.
    """
    svd = getattr(A, "svd", None)
    if weights is None and svd is not None:
        s = svd.s.to(b)
        cutoff = rank_cutoff(s.dtype) ** 2
        return svd.V(svd.Vt(b) * safe_inverse(s**2, per_item(rho, s), cutoff))
    gram = getattr(A, "row_gram", None)
    if gram is None:
        return None
    # On the range of A^T: (A^T W A + rho) A^T z = A^T (W D + rho) z with D = A A^T.
    gram = gram.to(device=b.device, dtype=b.dtype)
    Ab = A.forward(b)
    c = inverse(gram) * Ab
    W = 1.0 if weights is None else weights.to(gram)
    shift = per_item(rho, Ab)
    ranged = A.adjoint(c * safe_inverse(W * gram, shift))
    null = b - A.adjoint(c)
    return ranged + null * safe_inverse(torch.zeros((), dtype=b.dtype), per_item(rho, b)).to(b)


def pinv(A: LinearOperator, y: Tensor) -> Tensor | None:
    """A^+ y by A's svd or its diagonal A A^T; None where A has neither."""
    gram = getattr(A, "row_gram", None)
    if gram is not None:
        return A.adjoint(inverse(gram.to(device=y.device, dtype=y.real.dtype)) * y)
    svd = getattr(A, "svd", None)
    if svd is None:
        return None
    s = svd.s.to(device=y.device, dtype=y.real.dtype)
    return svd.V(svd.Ut(y) * inverse(s, rank_cutoff(s.dtype)))


def safe_inverse(s2: Tensor, rho: float | Tensor, cutoff: float = 0.0) -> Tensor:
    """1 / (s2 + rho), or 0 where the sum does not exceed cutoff * max(s2)."""
    total = s2 + rho
    kept = total > cutoff * s2.amax()
    return torch.where(kept, 1 / torch.where(kept, total, 1.0), 0.0)
