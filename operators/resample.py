"""Downsampling: block averages, or bicubic with antialiasing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor

from .color import reflection_to
from .linalg import per_item
from .linear import Forms, LinearOperator
from .spectral import SVD, safe_inverse


class Downsample(LinearOperator):
    """Fewer pixels by an integer factor f: (B, C, H, W) -> (B, C, H / f, W / f).

    kernel "box": the mean of each f x f block (area sampling), whose A A^T is I / f^2; "bicubic":
    Keys' cubic (1981, a = -1/2) stretched by f against aliasing, periodic boundary, centred on
    the blocks; its A A^T is diagonal in the Fourier basis of the small image.
    """

    def __init__(self, image_shape: Sequence[int], factor: int, *, kernel: str = "box"):
        shape, f = tuple(image_shape), int(factor)
        if len(shape) != 3 or f < 1 or f != factor or any(n % f for n in shape[1:]):
            raise ValueError(
                f"factor must be a whole number that divides H and W of image_shape (C, H, W); "
                f"got factor {factor}, image_shape {shape}"
            )
        if kernel not in ("box", "bicubic"):
            raise ValueError(f"kernel must be box or bicubic; got {kernel!r}")
        super().__init__(shape, (shape[0], shape[1] // f, shape[2] // f))
        self.factor, self.kernel = f, kernel
        if kernel == "bicubic":
            # One periodic row of the matrix along either axis: all others are its shifts by f.
            self.rows, self.columns = (_bicubic_matrix(n, f) for n in shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel == "box":
            return torch.nn.functional.avg_pool2d(x, self.factor)
        return self.rows.to(x) @ x @ self.columns.to(x).T

    def adjoint(self, y: Tensor) -> Tensor:
        if self.kernel == "box":
            f = self.factor
            spread = y / f**2
            return spread.repeat_interleave(f, -1).repeat_interleave(f, -2)
        return self.rows.to(y).T @ y @ self.columns.to(y)

    @property
    def forms(self) -> Forms:
        if self.kernel == "bicubic":
            return Forms.of(self, svd=self._separable_svd, solve=self._solve, pinv=self._pinv)
        gram = torch.full((1, 1, 1, 1), 1 / self.factor**2, dtype=torch.float64)
        return Forms.of(self, row_gram=gram, svd=self._block_svd)

    def _block_svd(self) -> SVD:
        """V^T: an orthonormal basis of each block whose first vector is constant; s = (1/f, 0..).

        Coefficients z are (B, C f^2, H / f, W / f), of each channel first the known one.
        """
        f, channels = self.factor, self.in_shape[0]
        Q = reflection_to(torch.ones(f * f, dtype=torch.float64))
        s = torch.zeros(channels, f * f, 1, 1, dtype=torch.float64)
        s[:, 0] = 1 / f

        def mixed(z: Tensor) -> Tensor:
            blocks = z.unflatten(1, (channels, f * f))
            # The reflection is symmetric: it is its own inverse.
            return torch.einsum("de,bcehw->bcdhw", Q.to(z), blocks).flatten(1, 2)

        def Vt(x: Tensor) -> Tensor:
            return mixed(torch.nn.functional.pixel_unshuffle(x, f))

        def V(z: Tensor) -> Tensor:
            return torch.nn.functional.pixel_shuffle(mixed(z), f)

        def U(z: Tensor) -> Tensor:
            return z.unflatten(1, (channels, f * f))[:, :, 0]

        def Ut(y: Tensor) -> Tensor:
            rest = y.new_zeros(y.shape[0], channels, f * f - 1, *y.shape[2:])
            return torch.cat([y[:, :, None], rest], 2).flatten(1, 2)

        return SVD(s.reshape(1, -1, 1, 1), V, Vt, U, Ut, True)

    def _separable_svd(self) -> SVD:
        """A x = R x C^T with R = U1 s1 V1^T, C = U2 s2 V2^T: s = s1 s2^T, zero beyond y's size.

        Coefficients z are (B, C, H, W).
        """
        (H, W), (h, w) = self.in_shape[1:], self.out_shape[1:]
        U1, s1, V1t = _periodic_svd(H, self.factor)
        U2, s2, V2t = _periodic_svd(W, self.factor)
        s = torch.zeros(1, 1, H, W, dtype=torch.float64)
        s[..., :h, :w] = torch.outer(s1, s2)

        def Ut(y: Tensor) -> Tensor:
            z = U1.T.to(y) @ y @ U2.to(y)
            z = z * (s[..., :h, :w] > 0).to(device=y.device)
            return torch.nn.functional.pad(z, (0, W - w, 0, H - h))

        return SVD(
            s,
            lambda z: V1t.T.to(z) @ z @ V2t.to(z),
            lambda x: V1t.to(x) @ x @ V2t.T.to(x),
            lambda z: U1.to(z) @ z[..., :h, :w] @ U2.T.to(z),
            Ut,
        )

    def _solve(self, b: Tensor, rho: float | Tensor, weights: Tensor | None) -> Tensor | None:
        if weights is not None:
            return None
        # (A^T A + rho)^-1 = A^T G^-1 (G + rho)^-1 A + (I - A^T G^-1 A) / rho with G = A A^T.
        Ab, gram = self.forward(b), self._gram(b)
        shift = per_item(rho, Ab)
        ranged = self.adjoint(_filtered(Ab, safe_inverse(gram, 0.0) * safe_inverse(gram, shift)))
        null = b - self.adjoint(_filtered(Ab, safe_inverse(gram, 0.0)))
        return ranged + null * safe_inverse(b.new_zeros(()), per_item(rho, b))

    def _pinv(self, y: Tensor) -> Tensor:
        return self.adjoint(_filtered(y, safe_inverse(self._gram(y), 0.0)))

    def _gram(self, like: Tensor) -> Tensor:
        """Eigenvalues (h, w) of A A^T at the frequencies of the small image."""
        eigen = [torch.fft.fft((M @ M.T)[:, 0]).real for M in (self.rows, self.columns)]
        return torch.outer(*eigen).to(like)


@lru_cache(maxsize=8)
def _periodic_svd(size: int, factor: int) -> tuple[Tensor, Tensor, Tensor]:
    """U, s, V^T of the bicubic matrix along one axis, V of full size; float64."""
    U, s, Vt = torch.linalg.svd(_bicubic_matrix(size, factor), full_matrices=True)
    return U, torch.where(s > 1e-12 * s[0], s, 0.0), Vt


def _bicubic_matrix(size: int, factor: int) -> Tensor:
    """(size / factor, size) float64: periodic antialiased cubic resampling, rows sum to 1."""
    centre = torch.arange(size // factor, dtype=torch.float64) * factor + (factor - 1) / 2
    distance = torch.arange(size, dtype=torch.float64)[None] - centre[:, None]
    periods = range(-3, 4)
    weight = cast(Tensor, sum(_keys((distance + period * size) / factor) for period in periods))
    return weight / weight.sum(1, keepdim=True)


def _keys(t: Tensor) -> Tensor:
    """Keys' cubic convolution kernel (1981) with a = -1/2."""
    t = t.abs()
    near = 1.5 * t**3 - 2.5 * t**2 + 1
    far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return torch.where(t <= 1, near, torch.where(t < 2, far, 0.0))


def _filtered(y: Tensor, eigenvalues: Tensor) -> Tensor:
    return torch.fft.ifft2(torch.fft.fft2(y) * eigenvalues).real
