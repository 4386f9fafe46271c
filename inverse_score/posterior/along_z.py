"""Slices of a volume held together: a penalty on their differences inside the proximal step.

A prior of images knows nothing of the neighbouring slice, so that samples of a volume flicker
along z. DiffusionMBIR (Chung et al. 2023) and DDS (Chung, Lee & Ye 2024) add |D_z x|_1, D_z the
difference of neighbouring slices, to the step towards the data, and split it off by ADMM.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from operators.linalg import conjugate_gradient, inner, per_item

PENALTIES = ("tv", "quadratic")

Matrix = Callable[[Tensor], Tensor]


class AlongZ:
    """-log p(x) = |D_z x|_1 / b ("tv") or |D_z x|^2 / (2 b^2) ("quadratic"), x (B, C, D, H, W).

    b: the mean |difference| of neighbouring slices in u, which other volumes of the kind tell:
    the scale of a Laplace law for "tv". As b goes to 0 the slices become one. splits: ADMM
    iterations a step.
    """

    def __init__(self, b: float, penalty: str = "tv", splits: int = 3):
        if not (math.isfinite(b) and b > 0):
            raise ValueError(f"between_slices must be positive and finite; got {b}")
        if penalty not in PENALTIES:
            raise ValueError(f"penalty must be one of {', '.join(PENALTIES)}; got {penalty!r}")
        if splits < 1:
            raise ValueError(f"splits must be >= 1; got {splits}")
        self.b, self.penalty, self.splits = float(b), penalty, int(splits)

    def step(self, matrix: Matrix, pull: Tensor, x0_hat: Tensor, iterations: int) -> Tensor:
        """argmin_x (x - x0_hat)^T M (x - x0_hat) / 2 - pull^T (x - x0_hat) + the penalty.

        M v = matrix(v), the data's and the prior's curvature. ADMM in scaled form (Boyd et al.
        2011, sec. 3.1.1): (M + D^T D / h) x = M x0_hat + pull + D^T (z - w) / h, then
        z = soft(D x + w, h / b), w += D x - z, from z = soft(D x0_hat, h / b). Each x is
        `iterations` CG steps from the one before.
        """
        gap, Mx = differences(x0_hat), matrix(x0_hat)
        target = Mx + pull
        mu = inner(x0_hat, Mx) / inner(x0_hat, x0_hat).clamp_min(torch.finfo(gap.dtype).tiny)
        if self.penalty == "quadratic":
            held = _Held.along(x0_hat, torch.full_like(mu, self.b, dtype=torch.float64) ** 2, mu)
            return held.solve(matrix, target, x0_hat, torch.zeros_like(gap), iterations)
        threshold = self._threshold(gap)
        held = _Held.along(x0_hat, self.b * threshold, mu)
        least = per_item(threshold, gap)
        x, z, w = x0_hat, _soft(gap, least), torch.zeros_like(gap)
        for _ in range(self.splits):
            x = held.solve(matrix, target, x, z - w, iterations)
            v = differences(x) + w
            z = _soft(v, least)
            w = v - z
        return x

    def _threshold(self, gap: Tensor) -> Tensor:
        """h / b (B,): b where slices differ by b, and more, up to all of the gap, as they are to
        differ by less than they do: a few splits then close it."""
        size = gap.abs().flatten(1).double()
        return torch.minimum(size.mean(1) ** 2 / self.b, size.max(1).values).clamp_min(self.b)


def _soft(v: Tensor, least: Tensor | float) -> Tensor:
    return v.sign() * (v.abs() - least).clamp_min(0.0)


@dataclass(frozen=True)
class _Held:
    """Solves with M + D^T D / h for any h > 0, however small.

    D^T D is diagonal in cosines along z, lambda_k = 2 - 2 cos(pi k / depth). CG runs on
    S (M + D^T D / h) S, S^2 = mu (mu + D^T D / h)^-1, mu the size of M: its condition is M's own
    instead of growing as 1 / h, and no term is of the size of 1 / h.
    """

    cosines: Tensor  # (depth, depth), a row a mode
    kept: Tensor  # (B, 1, depth, 1, 1): mu h / (mu h + lambda), S^2 of a mode
    inverse: Tensor  # the same of 1 / (mu h + lambda), 0 for the mean
    mu: Tensor  # (B, 1, 1, 1, 1)

    @classmethod
    def along(cls, x: Tensor, h: Tensor, mu: Tensor) -> _Held:
        depth = x.shape[2]
        k = torch.arange(depth, dtype=torch.float64, device=x.device)
        cosines = torch.cos(math.pi / depth * torch.outer(k, k + 0.5))
        cosines = cosines / cosines.norm(dim=1, keepdim=True)
        muh = (mu.double() * h)[:, None]
        total = muh + 2 - 2 * torch.cos(math.pi * k / depth)
        # D^T never reaches the mean, which is kept whole even where mu h underflows.
        kept = torch.where(k == 0, 1.0, muh / total)
        inverse = torch.where(k == 0, 0.0, 1 / total)
        shape = (-1, 1, depth, 1, 1)
        parts = (kept.reshape(shape), inverse.reshape(shape), mu.reshape(-1, 1, 1, 1, 1))
        return cls(cosines.to(x), *(part.to(x) for part in parts))

    def modes(self, x: Tensor) -> Tensor:
        return torch.einsum("kd,bcdhw->bckhw", self.cosines, x)

    def slices(self, x: Tensor) -> Tensor:
        return torch.einsum("kd,bckhw->bcdhw", self.cosines, x)

    def solve(self, matrix: Matrix, target: Tensor, x: Tensor, q: Tensor, iterations: int):
        """(M + D^T D / h) x = target + D^T q / h, by CG from x with mu in the place of M."""
        modes = self.kept * self.modes(x) + self.inverse * self.modes(differences_adjoint(q))
        start = self.slices(modes)
        # D^T D start / h = mu (x - start) + D^T q / h, so that 1 / h cancels.
        b = target - matrix(start) - self.mu * (x - start)
        S = self.kept.sqrt()

        def scaled(u: Tensor) -> Tensor:
            Mu = self.modes(matrix(self.slices(S * u)))
            return S * Mu + self.mu * (1 - self.kept) * u

        u, _ = conjugate_gradient(scaled, S * self.modes(b), max_iter=iterations)
        return start + self.slices(S * u)


def differences(x: Tensor) -> Tensor:
    """D_z x, slice d + 1 minus slice d: (B, C, D, H, W) -> (B, C, D - 1, H, W)."""
    if x.ndim != 5:
        raise ValueError(f"only volumes (B, C, D, H, W) have slices; got {tuple(x.shape)}")
    return x[:, :, 1:] - x[:, :, :-1]


def differences_adjoint(p: Tensor) -> Tensor:
    """D_z^T p, the transpose of `differences`."""
    zero = torch.zeros_like(p[:, :, :1])
    return torch.cat([zero, p], 2) - torch.cat([p, zero], 2)
