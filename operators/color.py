"""Grayscale: what is known of a colour image in colorization."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .linear import Forms, LinearOperator
from .spectral import SVD

REC601 = (0.299, 0.587, 0.114)


class Grayscale(LinearOperator):
    """y = sum_c w_c x_c, one channel: (B, C, H, W) -> (B, 1, H, W).

    weights: default the mean of three channels; REC601 are the luma weights of ITU-R BT.601.
    """

    def __init__(self, image_shape: Sequence[int], weights: Sequence[float] = (1 / 3,) * 3):
        shape = tuple(image_shape)
        self.weights = torch.as_tensor(weights, dtype=torch.float64)
        if len(shape) < 2 or self.weights.shape != shape[:1]:
            raise ValueError(
                f"weights must be one a channel of image_shape (C, *space); got "
                f"{tuple(self.weights.shape)} weights, image_shape {shape}"
            )
        if not bool(self.weights.isfinite().all()) or not bool(self.weights.any()):
            raise ValueError(f"weights must be finite and not all 0; got {tuple(weights)}")
        super().__init__(shape, (1, *shape[1:]))

    def forward(self, x: Tensor) -> Tensor:
        return _mix(self.weights[None], x)

    def adjoint(self, y: Tensor) -> Tensor:
        return _mix(self.weights[:, None], y)

    @property
    def forms(self) -> Forms:
        gram = (self.weights @ self.weights).reshape([1] * (len(self.in_shape) + 1))
        return Forms.of(self, row_gram=gram, svd=self._svd)

    def basis(self) -> Tensor:
        """(C, C) float64 with orthonormal rows, the first w / |w|: the known coordinate.

        In that basis colorization is inpainting: coordinate 0 is y / |w| (Song et al. 2021).
        """
        return reflection_to(self.weights)

    def _svd(self) -> SVD:
        """V^T = basis() on the channels, s = (|w|, 0, ..., 0)."""
        Q, channels = self.basis(), self.in_shape[0]
        s = torch.zeros(1, channels, *[1] * (len(self.in_shape) - 1), dtype=torch.float64)
        s[:, 0] = self.weights.norm()

        def Ut(y: Tensor) -> Tensor:
            rest = y.new_zeros(y.shape[0], channels - 1, *y.shape[2:])
            return torch.cat([y, rest], 1)

        return SVD(s, lambda z: _mix(Q.T, z), lambda x: _mix(Q, x), lambda z: z[:, :1], Ut, True)


def reflection_to(w: Tensor) -> Tensor:
    """Symmetric orthogonal matrix whose first row and column are w / |w| (Householder)."""
    u = w / w.norm()
    e = torch.zeros_like(u)
    # Of the two reflections take the one without cancellation, and undo its sign.
    sign = 1.0 if float(u[0]) < 0 else -1.0
    e[0] = sign
    v = u - e
    return sign * (torch.eye(len(u), dtype=u.dtype) - 2 * torch.outer(v, v) / (v @ v))


def _mix(matrix: Tensor, x: Tensor) -> Tensor:
    """Matrix times the channel axis of x (B, C, *space)."""
    return torch.einsum("dc,bc...->bd...", matrix.to(x), x)
