"""Closed forms: singular value decompositions, A = P(Lambda) T, and the solves they give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .linalg import per_item

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class SVD:
    """A = U diag(s) V^T, with real coefficients z (B, *shape) of as many numbers as x has.

    Vt(x) and V(z) are orthogonal and inverse to each other. s >= 0 has as many axes as z and
    broadcasts to it; its first axis is 1, or B where parameters are per item. U(z) reads only
    the entries where s > 0; Ut(y) is U^T y and zero where s = 0. So A x = U(s * Vt(x)) and
    A^T y = V(s * Ut(y)). entrywise: U puts each coefficient in one real number of y.
    """

    s: Tensor
    V: Map
    Vt: Map
    U: Map
    Ut: Map
    entrywise: bool = False

    def scaled(self, factor: float | Tensor) -> SVD:
        """The decomposition of factor * A, factor a scalar or (B,)."""
        a = torch.as_tensor(factor)
        sign = a.sign()

        def signed(v: Tensor) -> Tensor:
            return per_item(sign, v) * v

        s = self.s * per_item(a.abs(), self.s)
        U, Ut = self.U, self.Ut
        return replace(self, s=s, U=lambda z: signed(U(z)), Ut=lambda y: signed(Ut(y)))

    def masked(self, keep: Tensor, complex_: bool) -> SVD:
        """The decomposition of diag(keep) A, keep 0 or 1 like y; needs `entrywise`."""
        U, Ut = self.U, self.Ut
        known = Ut(_both_parts(keep, complex_)) != 0
        return replace(
            self,
            s=self.s * known.to(self.s),
            U=lambda z: keep.to(z) * U(z),
            Ut=lambda y: Ut(keep.to(y.real) * y),
        )

    @property
    def transform(self) -> Transform:
        """T = V^T and Lambda = [s > 0]: the known coefficients are U^T y / s."""

        def embed(y: Tensor) -> Tensor:
            s = self.s.to(y.device)
            return self.Ut(y) * inverse(s).to(y.real.dtype)

        mask = (self.s > 0).to(self.s.dtype)
        return Transform(self.Vt, self.V, mask, embed, entrywise=self.entrywise)


@dataclass(frozen=True)
class Transform:
    """A = P(Lambda) T with T invertible (Song et al. 2022, section 3): z = T x.

    T(x) -> z and T_inv(z) -> x; mask: the diagonal of Lambda, 0 or 1, broadcastable to z;
    embed(y): P(Lambda)^-1 y, the known coefficients of z in place, zeros elsewhere.
    exact: whether T_inv is the inverse to rounding (false for CT, where it is FBP).
    entrywise: each real number of y is one coefficient of z.
    """

    T: Map
    T_inv: Map
    mask: Tensor
    embed: Map
    exact: bool = True
    entrywise: bool = False

    def scaled(self, factor: float | Tensor) -> Transform:
        """That of factor * A, factor a number other than 0, or (B,) of them."""
        embed = self.embed
        return replace(self, embed=lambda y: embed(y / per_item(factor, y)))

    def masked(self, keep: Tensor, complex_: bool) -> Transform:
        """That of diag(keep) A, keep 0 or 1 like y; needs `entrywise`."""
        embed = self.embed
        known = embed(_both_parts(keep, complex_)) != 0
        return replace(
            self,
            mask=self.mask * known.to(self.mask),
            embed=lambda y: embed(keep.to(y.real) * y),
        )


def _both_parts(keep: Tensor, complex_: bool) -> Tensor:
    return torch.complex(keep.float(), keep.float()) if complex_ else keep.float()


def rank_cutoff(dtype: torch.dtype) -> float:
    """Singular values below this share of the largest are taken for rounding: 1000 eps."""
    return 1e3 * torch.finfo(dtype).eps


def inverse(s: Tensor, cutoff: float = 0.0) -> Tensor:
    """1 / s where s exceeds cutoff * max(s), else 0."""
    kept = s > cutoff * s.amax()
    return torch.where(kept, 1 / torch.where(kept, s, 1.0), 0.0)


def solve_by_svd(svd: SVD, b: Tensor, rho: float | Tensor) -> Tensor:
    """(A^T A + rho I)^-1 b; rho = 0 gives the solution of least norm."""
    s = svd.s.to(b)
    cutoff = rank_cutoff(s.dtype) ** 2
    return svd.V(svd.Vt(b) * safe_inverse(s**2, per_item(rho, s), cutoff))


def solve_by_rows(
    forward: Map,
    adjoint: Map,
    gram: Tensor,
    b: Tensor,
    rho: float | Tensor,
    weights: Tensor | None,
) -> Tensor:
    """(A^T W A + rho I)^-1 b, A A^T = diag(gram); rho = 0 gives the solution of least norm."""
    # On the range of A^T: (A^T W A + rho) A^T z = A^T (W D + rho) z with D = A A^T.
    gram = gram.to(device=b.device, dtype=b.dtype)
    Ab = forward(b)
    c = inverse(gram) * Ab
    W = 1.0 if weights is None else weights.to(gram)
    shift = per_item(rho, Ab)
    ranged = adjoint(c * safe_inverse(W * gram, shift))
    null = b - adjoint(c)
    return ranged + null * safe_inverse(torch.zeros((), dtype=b.dtype), per_item(rho, b)).to(b)


def pinv_by_rows(adjoint: Map, gram: Tensor, y: Tensor) -> Tensor:
    """A^+ y, A A^T = diag(gram)."""
    return adjoint(inverse(gram.to(device=y.device, dtype=y.real.dtype)) * y)


def pinv_by_svd(svd: SVD, y: Tensor) -> Tensor:
    """A^+ y; singular values below `rank_cutoff` of the largest count as 0."""
    s = svd.s.to(device=y.device, dtype=y.real.dtype)
    return svd.V(svd.Ut(y) * inverse(s, rank_cutoff(s.dtype)))


def safe_inverse(s2: Tensor, rho: float | Tensor, cutoff: float = 0.0) -> Tensor:
    """1 / (s2 + rho), or 0 where the sum does not exceed cutoff * max(s2)."""
    total = s2 + rho
    kept = total > cutoff * s2.amax()
    return torch.where(kept, 1 / torch.where(kept, total, 1.0), 0.0)
