"""MRI coil by coil, images of real values, and what joins coil images to one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from ..fourier import fft2c, ifft2c
from ..linear import Forms, LinearOperator
from ..spectral import SVD
from .cartesian import CartesianMRI


class RealImage(LinearOperator):
    """x (B, 1, H, W) -> (B, 2, H, W) with imaginary part 0; the adjoint keeps the real part."""

    def __init__(self, image_shape: Sequence[int]):
        H, W = tuple(image_shape)[-2:]
        super().__init__((1, H, W), (2, H, W))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, torch.zeros_like(x)], 1)

    def adjoint(self, y: Tensor) -> Tensor:
        return y[:, :1]


class CoilwiseMRI(LinearOperator):
    """kspace_c = mask * F(x_c): each coil's image by itself, without maps.

    x (B, 2 coils, H, W): real and imaginary part of coil 0, of coil 1, ...; kspace complex
    (B, coils, H, W), zero where mask is 0. mask: (W,) or (H, W). sens_maps (coils, H, W), with
    sum |S_c|^2 = 1 in the body, do not enter y: they give `forms.sense`, the step towards coil
    images that are one image seen by all coils.
    """

    out_complex = True

    def __init__(
        self,
        mask: Tensor,
        coils: int | None = None,
        image_shape: Sequence[int] | None = None,
        *,
        sens_maps: Tensor | None = None,
    ):
        single = CartesianMRI(mask, None, sens_maps.shape[-2:] if image_shape is None
                              and sens_maps is not None else image_shape)  # fmt: skip
        coils = sens_maps.shape[0] if coils is None and sens_maps is not None else coils
        if coils is None or coils < 1 or single.batch is not None:
            raise ValueError(f"CoilwiseMRI needs coils >= 1 and one mask; got coils {coils}")
        H, W = single.in_shape[1:]
        super().__init__((2 * coils, H, W), (coils, H, W))
        self.mask, self.coils, self.single = single.mask, int(coils), single
        self.sens_maps = sens_maps
        if sens_maps is not None and tuple(sens_maps.shape) != (coils, H, W):
            raise ValueError(
                f"sens_maps must be (coils, H, W) = {(coils, H, W)}; got {tuple(sens_maps.shape)}"
            )

    def forward(self, x: Tensor) -> Tensor:
        return fft2c(_coils(x)) * self._mask(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return _parts(ifft2c(y * self._mask(y.real)))

    def _mask(self, like: Tensor) -> Tensor:
        return self.mask.to(device=like.device, dtype=like.dtype)

    @property
    def forms(self) -> Forms:
        return Forms.of(self, svd=self._svd, sense=None if self.sens_maps is None else self._sense)

    def _svd(self) -> SVD:
        """V^T x = the parts of F x_c, s = mask."""
        s = torch.broadcast_to(self.mask.to(torch.float32), self.in_shape)[None]

        def U(z: Tensor) -> Tensor:
            return _coils(z) * self._mask(z)

        def Ut(y: Tensor) -> Tensor:
            return _parts(y * self._mask(y.real))

        return SVD(s, lambda z: _parts(ifft2c(_coils(z))), lambda x: _parts(fft2c(_coils(x))),
                   U, Ut, True)  # fmt: skip

    def _sense(self, x: Tensor, kspace: Tensor) -> Tensor:
        """S A_S^H (kspace - A_S S^H x), A_S = mask F S, S^H x = sum_c S_c^* x_c."""
        S = cast(Tensor, self.sens_maps).to(_coils(x))
        image = (S.conj() * _coils(x)).sum(1, keepdim=True)
        rest = self._mask(x) * (kspace - fft2c(S * image))
        return _parts(S * (S.conj() * ifft2c(rest)).sum(1, keepdim=True))

    @property
    def num_measured(self) -> int:
        return self.coils * int(self.single.num_measured)


def root_sum_of_squares(x: Tensor) -> Tensor:
    """sqrt(sum_c |x_c|^2): coil images (..., 2 coils, H, W) as parts -> (..., H, W)."""
    return x.square().sum(-3).sqrt()


def _coils(x: Tensor) -> Tensor:
    """(B, 2 coils, H, W) real -> (B, coils, H, W) complex."""
    pairs = x.unflatten(1, (-1, 2))
    return torch.complex(pairs[:, :, 0].contiguous(), pairs[:, :, 1].contiguous())


def _parts(z: Tensor) -> Tensor:
    """The inverse of `_coils`."""
    return torch.stack([z.real, z.imag], 2).flatten(1, 2)
