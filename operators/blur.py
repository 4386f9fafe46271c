"""Blur: periodic convolution, diagonal in the Fourier basis."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .fourier import LAST_TWO, hartley2
from .linalg import per_item
from .linear import Forms, LinearOperator
from .spectral import SVD, inverse, rank_cutoff, safe_inverse


class Blur(LinearOperator):
    """y = k * x, convolution with periodic boundary: x and y (B, C, H, W).

    kernel: (h, w) or (B, h, w), its centre at entry (h // 2, w // 2), no larger than the image;
    used as it is (kernels that sum to 1 keep brightness). The periodic boundary is what makes the
    singular value decomposition and every solve without weights exact; pad an image whose edges
    differ.
    """

    def __init__(self, kernel: Tensor, image_shape: Sequence[int]):
        shape = tuple(image_shape)
        kernel = torch.as_tensor(kernel)
        if len(shape) != 3:
            raise ValueError(f"image_shape must be (C, H, W); got {shape}")
        if kernel.ndim not in (2, 3) or any(
            k > n for k, n in zip(kernel.shape[-2:], shape[1:], strict=True)
        ):
            raise ValueError(
                f"kernel must be (h, w) or (B, h, w) within {shape[1:]}; got {tuple(kernel.shape)}"
            )
        if not bool(kernel.isfinite().all()) or not bool(kernel.any()):
            raise ValueError("kernel must be finite and not all 0")
        batch = kernel.shape[0] if kernel.ndim == 3 else None
        super().__init__(shape, shape, batch)
        self.kernel = kernel
        placed = _placed(kernel.double(), shape[1:])
        # (1 or B, 1, H, W) transfer function, without normalisation: y^ = h x^.
        self.transfer = torch.fft.fft2(placed).reshape(-1, 1, *shape[1:])
        self._per_item = () if batch is None else ("kernel", "transfer")

    def forward(self, x: Tensor) -> Tensor:
        return self._filter(x, self._half(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self._filter(y, self._half(y).conj())

    def _normal(self, x: Tensor) -> Tensor:
        return self._filter(x, self._half(x).abs() ** 2)

    def _half(self, like: Tensor) -> Tensor:
        """The transfer function at the frequencies of rfft2, in like's precision."""
        complex_ = torch.complex128 if like.dtype == torch.float64 else torch.complex64
        half = self.transfer[..., : self.in_shape[-1] // 2 + 1]
        return half.to(device=like.device, dtype=complex_)

    def _filter(self, x: Tensor, transfer: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x) * transfer, s=self.in_shape[1:])

    @property
    def forms(self) -> Forms:
        return Forms.of(self, svd=self._svd, solve=self._solve, pinv=self._pinv)

    def _solve(self, b: Tensor, rho: float | Tensor, weights: Tensor | None) -> Tensor | None:
        if weights is not None:
            return None
        power = self._half(b).abs() ** 2
        return self._filter(b, safe_inverse(power, per_item(rho, b), rank_cutoff(b.dtype) ** 2))

    def _pinv(self, y: Tensor) -> Tensor:
        half = self._half(y)
        size = inverse(half.abs(), rank_cutoff(y.dtype))
        return self._filter(y, half.conj() * size**2)

    def _svd(self) -> SVD:
        """V the Hartley basis, s = |h|, U = V times the phase of h."""
        s = self.transfer.abs()
        phase = torch.where(s > 0, self.transfer / torch.where(s > 0, s, 1.0), 1.0)

        def turn(x: Tensor, by: Tensor) -> Tensor:
            complex_ = torch.complex128 if x.dtype == torch.float64 else torch.complex64
            half = by[..., : self.in_shape[-1] // 2 + 1].to(device=x.device, dtype=complex_)
            return self._filter(x, half)

        def keep(z: Tensor) -> Tensor:
            return z * (s > 0).to(z)

        return SVD(
            s,
            hartley2,
            hartley2,
            lambda z: turn(hartley2(keep(z)), phase),
            lambda y: keep(hartley2(turn(y, phase.conj()))),
        )


class GaussianBlur(Blur):
    """Blur by a Gaussian of standard deviation std (pixels), cut at `truncate` std, sum 1."""

    def __init__(self, image_shape: Sequence[int], std: float, *, truncate: float = 4.0):
        if not (math.isfinite(std) and std > 0):
            raise ValueError(f"std must be a positive number of pixels; got {std}")
        shape = tuple(image_shape)
        rows, columns = (_gaussian(std, truncate, n) for n in shape[-2:])
        super().__init__(torch.outer(rows, columns), shape)
        self.std = float(std)


class MotionBlur(Blur):
    """Blur along a straight line of `length` pixels at `angle` (radians, from x upwards), sum 1."""

    def __init__(self, image_shape: Sequence[int], length: float, angle: float):
        if not (math.isfinite(length) and length > 0 and math.isfinite(angle)):
            raise ValueError(f"length must be positive and angle finite; got {length}, {angle}")
        half = math.ceil(length / 2) + 1
        size = 2 * half + 1
        if size > min(tuple(image_shape)[-2:]):
            raise ValueError(f"a blur of {length} pixels exceeds the image {tuple(image_shape)}")
        # Bilinear deposit of points along the line: the kernel varies smoothly with the angle.
        t = torch.linspace(-length / 2, length / 2, 16 * size, dtype=torch.float64)
        row, column = half - t * math.sin(angle), half + t * math.cos(angle)
        kernel = torch.zeros(size, size, dtype=torch.float64)
        for down in (0, 1):
            for right in (0, 1):
                i, j = row.floor().long() + down, column.floor().long() + right
                share = (1 - (row - i).abs()) * (1 - (column - j).abs())
                kernel.index_put_((i, j), share, accumulate=True)
        super().__init__(kernel / kernel.sum(), image_shape)


def _gaussian(std: float, truncate: float, size: int) -> Tensor:
    radius = min(math.ceil(truncate * std), (size - 1) // 2)
    t = torch.arange(-radius, radius + 1, dtype=torch.float64)
    values = torch.exp(-(t**2) / (2 * std**2))
    return values / values.sum()


def _placed(kernel: Tensor, size: Sequence[int]) -> Tensor:
    """The kernel on the image's grid with its centre at entry (0, 0)."""
    h, w = kernel.shape[-2:]
    grid = kernel.new_zeros(*kernel.shape[:-2], *size)
    grid[..., :h, :w] = kernel
    return torch.roll(grid, (-(h // 2), -(w // 2)), LAST_TWO)
