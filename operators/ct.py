"""CT: line integrals of an image in parallel and fan beams, with the exact adjoint and FBP."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .linear import LinearOperator
from .rays import joseph


class _Sparse(torch.autograd.Function):
    """M v with the gradient M^T g, both stored, differentiable any number of times."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:
        ctx.pair = (transposed, matrix)
        return matrix @ v

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Sparse.apply(grad.contiguous(), *ctx.pair), None, None


class Radon(LinearOperator):
    """Line integrals of x (B, C, H, W): y (B, C, angles, detectors) (Joseph's interpolation).

    Ray (theta, s) is X cos theta + Y sin theta = s, X to the right, Y upwards from the image's
    centre. image_size: n or (H, W); angles: (A,) radians; detectors: their number, default
    the image's diagonal; pixel_size: side of a pixel in mm, so y is in units of x times mm.
    """

    def __init__(
        self,
        image_size: int | Sequence[int],
        angles: Tensor | Sequence[float],
        detectors: int | None = None,
        geometry: str = "parallel",
        pixel_size: float = 1.0,
        *,
        channels: int = 1,
    ):
        H, W = (image_size,) * 2 if isinstance(image_size, int) else tuple(image_size)
        self.angles = torch.as_tensor(angles, dtype=torch.float64)
        if self.angles.ndim != 1 or not len(self.angles) or not bool(self.angles.isfinite().all()):
            raise ValueError(f"angles must be (A,) finite radians; got {tuple(self.angles.shape)}")
        detectors = math.ceil(math.hypot(H, W)) if detectors is None else int(detectors)
        super().__init__((channels, H, W), (channels, len(self.angles), detectors))
        self.pixel_size = float(pixel_size)
        self._matrices: dict[torch.dtype, tuple[Tensor, Tensor]] = {}

    def forward(self, x: Tensor) -> Tensor:
        matrix, transposed = self._pair(x)
        columns = x.reshape(-1, matrix.shape[1]).T.contiguous()
        y = _Sparse.apply(columns, matrix, transposed)
        return y.T.reshape(x.shape[0], *self.out_shape)

    def adjoint(self, y: Tensor) -> Tensor:
        matrix, transposed = self._pair(y)
        columns = y.reshape(-1, matrix.shape[0]).T.contiguous()
        x = _Sparse.apply(columns, transposed, matrix)
        return x.T.reshape(y.shape[0], *self.in_shape)

    def _pair(self, like: Tensor) -> tuple[Tensor, Tensor]:
        if like.dtype not in self._matrices:
            dtype = np.float64 if like.dtype == torch.float64 else np.float32
            detectors = self.out_shape[-1]
            s = np.arange(detectors) - (detectors - 1) / 2
            theta = np.repeat(self.angles.numpy(), detectors)
            H, W = self.in_shape[1:]
            arrays = joseph(theta, np.tile(s, len(self.angles)), (H, W), dtype)
            arrays = (arrays[0], arrays[1], arrays[2] * dtype(self.pixel_size))
            self._matrices[like.dtype] = _csr_pair(arrays, (len(theta), H * W))
        return self._matrices[like.dtype]


def _csr_pair(arrays: tuple[np.ndarray, ...], shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    indptr, indices, weights = (torch.from_numpy(a) for a in arrays)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse (CSR|invariant)")
        matrix = torch.sparse_csr_tensor(indptr.int(), indices, weights, size=shape)
        columns = matrix.to_sparse_csc()
        transposed = torch.sparse_csr_tensor(
            columns.ccol_indices().int(),
            columns.row_indices().int(),
            columns.values(),
            size=shape[::-1],
        )
    return matrix, transposed
