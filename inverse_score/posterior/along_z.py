"""Slices of a volume held together: a penalty on their differences inside the proximal step.

A prior of images knows nothing of the neighbouring slice, so that samples of a volume flicker
along z. DiffusionMBIR (Chung et al. 2023) and DDS (Chung, Lee & Ye 2024) add |D_z x|_1, D_z the
difference of neighbouring slices, to the step towards the data, and split it off by ADMM.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from operators.linalg import conjugate_gradient

PENALTIES = ("tv", "quadratic")


class AlongZ:
    """-log p(x) = |D_z x|_1 / b ("tv") or |D_z x|^2 / (2 b^2) ("quadratic"), x (B, C, D, H, W).

    b: the mean |difference| of neighbouring slices in u, which other volumes of the kind tell:
    the scale of a Laplace law for "tv". splits: ADMM iterations a step.
    """

    def __init__(self, b: float, penalty: str = "tv", splits: int = 3):
        if not (math.isfinite(b) and b > 0):
            raise ValueError(f"between_slices must be positive and finite; got {b}")
        if penalty not in PENALTIES:
            raise ValueError(f"penalty must be one of {', '.join(PENALTIES)}; got {penalty!r}")
        if splits < 1:
            raise ValueError(f"splits must be >= 1; got {splits}")
        self.b, self.penalty, self.splits = float(b), penalty, int(splits)

    def step(
        self, matrix: Callable[[Tensor], Tensor], pull: Tensor, x0_hat: Tensor, iterations: int
    ) -> Tensor:
        """argmin_x (x - x0_hat)^T M (x - x0_hat) / 2 - pull^T (x - x0_hat) + the penalty.

        M v = matrix(v), the data's and the prior's curvature. ADMM in scaled form (Boyd et al.
        2011, sec. 3.1.1): (M + rho D^T D) x = M x0_hat + pull + rho D^T (z - w), then
        z = soft(D x + w, 1 / (b rho)), w += D x - z; rho = 1 / b^2 puts the threshold at b. Each
        x is `iterations` CG steps from the one before.
        """
        rho = 1 / self.b**2

        def coupled(v: Tensor) -> Tensor:
            return matrix(v) + rho * differences_adjoint(differences(v))

        if self.penalty == "quadratic":
            b = pull - rho * differences_adjoint(differences(x0_hat))
            return x0_hat + conjugate_gradient(coupled, b, max_iter=iterations)[0]
        x, z, w = x0_hat, differences(x0_hat), torch.zeros_like(differences(x0_hat))
        target = matrix(x0_hat) + pull
        for _ in range(self.splits):
            b = target + rho * differences_adjoint(z - w) - coupled(x)
            x = x + conjugate_gradient(coupled, b, max_iter=iterations)[0]
            v = differences(x) + w
            z = v.sign() * (v.abs() - self.b).clamp_min(0.0)
            w = v - z
        return x


def differences(x: Tensor) -> Tensor:
    """D_z x, slice d + 1 minus slice d: (B, C, D, H, W) -> (B, C, D - 1, H, W)."""
    if x.ndim != 5:
        raise ValueError(f"only volumes (B, C, D, H, W) have slices; got {tuple(x.shape)}")
    return x[:, :, 1:] - x[:, :, :-1]


def differences_adjoint(p: Tensor) -> Tensor:
    """D_z^T p, the transpose of `differences`."""
    zero = torch.zeros_like(p[:, :, :1])
    return torch.cat([zero, p], 2) - torch.cat([p, zero], 2)
