"""Cartesian MRI: y = M F S x."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor

from ..fourier import LAST_TWO, fft2c, ifft2c
from ..linalg import per_item
from ..linear import Forms, LinearOperator, Resolvent, as_channels, as_complex
from ..masks import checked_mask
from ..spectral import SVD, safe_inverse
from .normal import few_frequencies, filtered, normal_of_coils
from .parameters import checked_kspace_mask, checked_maps, image_size, rows_columns
from .rows import RowResolvent


class CartesianMRI(LinearOperator):
    """kspace = mask * F(sens_maps * x) (Pruessmann et al. 1999).

    x: (B, 2, H, W), real and imaginary part; kspace: complex (B, coils, H, W), coils = 1 without
    maps, on the full grid with zeros where the mask is 0. F is centred and orthonormal. mask:
    (W,) for whole columns, (H, W) or (B, H, W), centred like k-space; columns that a scanner
    filled with zeros (partial Fourier, padding) are zeros of the mask. sens_maps: (coils, H, W) or
    (B, coils, H, W) complex. image_shape: (H, W), needed for a mask (W,) without maps.
    """

    out_complex = True

    def __init__(
        self,
        mask: Tensor,
        sens_maps: Tensor | None = None,
        image_shape: Sequence[int] | None = None,
    ):
        mask = checked_mask(mask)
        H, W = image_size(mask, sens_maps, image_shape)
        self.mask, mask_batch = checked_kspace_mask(mask, H, W)
        self.sens_maps, maps_batch, coils = checked_maps(sens_maps, H, W)
        if None not in (mask_batch, maps_batch) and mask_batch != maps_batch:
            raise ValueError(
                f"mask and sens_maps must agree on the items; got {mask_batch} masks, "
                f"{maps_batch} sets of maps"
            )
        super().__init__((2, H, W), (coils, H, W), mask_batch or maps_batch)
        self._per_item = tuple(
            name
            for name, batch in (("mask", mask_batch), ("sens_maps", maps_batch))
            if batch is not None
        )
        self._frequencies = few_frequencies(self.mask) if self.mask.ndim == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        coil_images = as_complex(x)[:, None]
        if self.sens_maps is not None:
            coil_images = self.sens_maps.to(coil_images) * coil_images
        return fft2c(coil_images) * self._full_mask(x)

    def adjoint(self, y: Tensor) -> Tensor:
        coil_images = ifft2c(y * self._full_mask(y.real))
        if self.sens_maps is not None:
            coil_images = self.sens_maps.to(coil_images).conj() * coil_images
        return as_channels(coil_images.sum(1))

    def _normal(self, x: Tensor) -> Tensor:
        """A^T A without shifts, see `normal`."""
        image = as_complex(x)
        mask = torch.fft.ifftshift(self._full_mask(x)[:, 0], dim=LAST_TWO)
        dim = (-1,) if self.mask.ndim == 1 else LAST_TWO
        if self.sens_maps is None:
            return as_channels(filtered(image, mask, dim))
        return as_channels(
            normal_of_coils(image, self.sens_maps.to(image), mask, dim, self._frequencies)
        )

    def _full_mask(self, like: Tensor) -> Tensor:
        """mask as (1 or B, 1, H or 1, W), in the real dtype of like."""
        mask = self.mask.to(device=like.device, dtype=like.dtype)
        return mask[:, None] if mask.ndim == 3 else mask.reshape(1, 1, *rows_columns(mask))

    @property
    def forms(self) -> Forms:
        if self.sens_maps is not None:
            return Forms.of(self, near=self._near)
        return Forms.of(self, svd=self._svd, solve=self._solve, pinv=self.adjoint)

    def _solve(self, b: Tensor, rho: float | Tensor, weights: Tensor | None) -> Tensor:
        # Without maps A^T W A is diagonal in k-space, whatever the weights, and a convolution, so
        # that shifts cancel (see _normal).
        diagonal = self._full_mask(b) * (1.0 if weights is None else weights.to(b))
        inverse = torch.fft.ifftshift(safe_inverse(diagonal, per_item(rho, b))[:, 0], dim=LAST_TWO)
        dim = (-1,) if inverse.shape[-2] == 1 else LAST_TWO
        return as_channels(filtered(as_complex(b), inverse, dim))

    def _near(self, weights: Tensor | None) -> Resolvent | None:
        """By whole columns, see `rows`; None for masks and weights that join rows."""
        maps = cast(Tensor, self.sens_maps)
        if self.mask.ndim > 1 or not RowResolvent.fits(maps):
            return None
        if weights is None:
            return self._rows
        if weights.numel() != weights.shape[-1]:
            return None
        # A number a column joins the mask.
        return RowResolvent(self.mask.to(weights) * weights.flatten(), maps)

    @cached_property
    def _rows(self) -> RowResolvent:
        return RowResolvent(self.mask, cast(Tensor, self.sens_maps))

    def __getitem__(self, index: Any) -> LinearOperator:
        item = super().__getitem__(index)
        if item is not self and "_rows" in vars(self):
            chosen = torch.arange(self.batch or 1)[index].reshape(-1).tolist()
            vars(item)["_rows"] = self._rows[chosen]
        return item

    def _svd(self) -> SVD:
        """Without maps: V^T x = (Re, Im) of F x, s = mask."""
        mask = self.mask.to(torch.float32)
        s = mask[:, None] if mask.ndim == 3 else mask.reshape(1, 1, *rows_columns(mask))

        def U(z: Tensor) -> Tensor:
            return as_complex(z)[:, None] * self._full_mask(z)

        def Ut(y: Tensor) -> Tensor:
            return as_channels((y * self._full_mask(y.real))[:, 0])

        return SVD(s, _from_kspace, _to_kspace, U, Ut, True)

    @property
    def num_measured(self) -> int | Tensor:
        coils, H, _ = self.out_shape
        rows = H if self.mask.ndim == 1 else 1
        if self.mask.ndim == 3:
            return 2 * coils * self.mask.flatten(1).sum(1).expand(self.batch or 1)
        return 2 * coils * rows * int(self.mask.sum())


def _to_kspace(x: Tensor) -> Tensor:
    return as_channels(fft2c(as_complex(x)))


def _from_kspace(z: Tensor) -> Tensor:
    return as_channels(ifft2c(as_complex(z)))
