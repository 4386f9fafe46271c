"""Coil maps fitted to everything that was measured, given an image: smooth, and not periodic.

y_c = F (S_c x) + n, F the sampling of one coil's image. Maps on the field of view's own Fourier
grid are periodic; real ones jump from one edge to the other, so these live on a larger grid and
the field of view is cut out of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .linalg import conjugate_gradient
from .linear import LinearOperator, as_channels, as_complex

# The grid's size, in fields of view.
OVER = 1.5
# S = cut(F^-1 (w s)), w = (1 + LENGTH f^2)^-POWER, f in cycles a field of view.
LENGTH, POWER = 0.06, 4
# Frequencies whose share of the largest amplitude is less are left out.
LEAST = 1e-4


@dataclass(frozen=True)
class SmoothFields:
    """S = Y (w s) X^T: complex fields (..., H, W) of coefficients s (..., m, n) near the origin.

    Y, X: the exponentials of the larger grid on the field of view; w: (m, n), the law's std, whose
    fields have a mean power of 1 a pixel where s ~ CN(0, 1).
    """

    Y: Tensor
    X: Tensor
    w: Tensor

    @classmethod
    def of(cls, shape: tuple[int, int], like: Tensor, *, over: float = OVER) -> SmoothFields:
        """Fields over images of `shape`, in the dtype of the complex tensor like."""
        side = math.sqrt(shape[0] * shape[1])
        (Y, fy), (X, fx) = (_exponentials(n, side, over) for n in shape)
        w = (1 + LENGTH * (fy[:, None] ** 2 + fx[None] ** 2)) ** -POWER
        w = w / w.square().sum().sqrt()
        return cls(Y.to(like), X.to(like), w.to(like.real))

    def __call__(self, s: Tensor) -> Tensor:
        return self.Y @ (self.w * s) @ self.X.T

    def adjoint(self, S: Tensor) -> Tensor:
        return self.w * (self.Y.mH @ S @ self.X.conj())


def _exponentials(n: int, side: float, over: float) -> tuple[Tensor, Tensor]:
    """(exp(2 pi i p j / N) of pixels p and frequencies j, their f in cycles a length `side`)."""
    N = 2 * round(n * over / 2)
    j = torch.arange(N, dtype=torch.float64) - N // 2
    f = j / N * side
    kept = (1 + LENGTH * f**2) ** -POWER > LEAST
    pixel = torch.arange(n, dtype=torch.float64) - n // 2
    angle = 2 * math.pi / N * torch.outer(pixel, j[kept])
    return torch.polar(torch.ones_like(angle), angle), f[kept]


def fit_maps(
    image: Tensor,
    coil_images: Tensor,
    sampling: LinearOperator,
    fields: SmoothFields,
    variance: Tensor | float,
    *,
    iterations: int = 20,
) -> Tensor:
    """Maps (coils, H, W): argmin |y_c - F (x S_c)|^2 / variance + |s_c|^2, by conjugate gradients.

    image: x (H, W) complex; coil_images: F^H y, (coils, H, W); sampling: F, of images (2, H, W)
    without coils; variance: of the data given x, (), relative to maps of mean power 1.
    """

    def normal(s: Tensor) -> Tensor:
        seen = as_complex(sampling.normal(as_channels(image * fields(s))))
        return fields.adjoint(image.conj() * seen) / variance + s

    b = fields.adjoint(image.conj() * coil_images) / variance
    s, _ = conjugate_gradient(normal, b, tol=1e-4, max_iter=iterations)
    return fields(s)
