"""Cartesian MRI: y = M F S x."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor

from ..fourier import LAST_TWO, fft2c, ifft2c
from ..linalg import per_item
from ..linear import Forms, LinearOperator, Resolvent, as_channels, as_complex
from ..masks import checked_mask
from ..spectral import SVD, safe_inverse
from .rows import RowResolvent

# Entries of a block of rows that a thread takes at once: 1 MB an array in complex64.
_SHARE = 1 << 17


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
        H, W = _image_size(mask, sens_maps, image_shape)
        self.mask, mask_batch = _checked_kspace_mask(mask, H, W)
        self.sens_maps, maps_batch, coils = _checked_maps(sens_maps, H, W)
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
        self._frequencies = _few_frequencies(self.mask) if self.mask.ndim == 1 else None

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
        """A^T A without shifts, coil by coil.

        F^H M F is a convolution and commutes with shifts, so those of the image cancel and only
        the mask is rolled. A mask of whole columns leaves the transform along them and its
        inverse to cancel; where it keeps few of them, two narrow matrices are cheaper than two
        FFTs. One coil at a time, of a large image some rows at a time, stays in the cache.
        """
        image = as_complex(x)
        mask = torch.fft.ifftshift(self._full_mask(x)[:, 0], dim=LAST_TWO)
        dim = (-1,) if self.mask.ndim == 1 else LAST_TWO
        if self.sens_maps is None:
            return as_channels(_filtered(image, mask, dim))
        maps = self.sens_maps.to(image)
        maps = maps if maps.ndim == 4 else maps[None]
        learned = torch.is_grad_enabled() and (x.requires_grad or maps.requires_grad)
        if learned or x.device.type != "cpu":
            k = _filtered(maps * image[:, None], mask[:, None], dim)
            return as_channels((maps.conj() * k).sum(1))
        E, total = self._frequencies, torch.zeros_like(image)
        items = (v.expand(len(image), *v.shape[1:]) for v in (image, maps, mask, total))
        for u, S, M, out in zip(*items, strict=True):
            filtered = _by_transforms(M, dim) if E is None else _by_products(E.to(u))
            _coil_by_coil(u, S, filtered, dim, out)
        # The conjugate of the sum over coils was summed.
        return as_channels(total.conj_physical_())

    def _full_mask(self, like: Tensor) -> Tensor:
        """mask as (1 or B, 1, H or 1, W), in the real dtype of like."""
        mask = self.mask.to(device=like.device, dtype=like.dtype)
        return mask[:, None] if mask.ndim == 3 else mask.reshape(1, 1, *_rows_columns(mask))

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
        return as_channels(_filtered(as_complex(b), inverse, dim))

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
        s = mask[:, None] if mask.ndim == 3 else mask.reshape(1, 1, *_rows_columns(mask))

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
            return 2 * coils * self.mask.flatten(1).sum(1).expand(self.batch)
        return 2 * coils * rows * int(self.mask.sum())


def _filtered(image: Tensor, mask: Tensor, dim: tuple[int, ...]) -> Tensor:
    """F^H M F image, the mask unshifted."""
    k = torch.fft.fftn(image, dim=dim, norm="ortho")
    return torch.fft.ifftn(k * mask if k.requires_grad else k.mul_(mask), dim=dim, norm="ortho")


def _by_transforms(mask: Tensor, dim: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    """z -> conj(F^H M F z) = F conj(M F z): one real product masks and conjugates."""
    signed = torch.stack([mask, -mask], -1)

    def filtered(z: Tensor) -> Tensor:
        k = torch.fft.fftn(z, dim=dim, norm="ortho")
        torch.view_as_real(k).mul_(signed)
        return torch.fft.fftn(k, dim=dim, norm="ortho")

    return filtered


def _by_products(E: Tensor) -> Callable[[Tensor], Tensor]:
    """z -> conj(E E^H z) along rows, written over z."""
    return lambda z: torch.mm((z @ E).conj_physical_(), E.T, out=z)


def _coil_by_coil(
    image: Tensor,
    maps: Tensor,
    filtered: Callable[[Tensor], Tensor],
    dim: tuple[int, ...],
    out: Tensor,
) -> None:
    """Adds sum_c S_c conj(P(S_c image)) to out, filtered(z) = conj(P z), which may overwrite z.

    The conjugate of A^T A needs no conjugate maps. Where P acts along rows they go in blocks.
    """
    H, W = image.shape
    blocks = -(-H * W // (_SHARE * torch.get_num_threads())) if dim == (-1,) else 1
    for x, S, total in zip(*(v.chunk(blocks, -2) for v in (image, maps, out)), strict=True):
        coil_image = torch.empty_like(x)
        for S_c in S.unbind():
            total.addcmul_(S_c, filtered(torch.mul(S_c, x, out=coil_image)))


def _few_frequencies(mask: Tensor) -> Tensor | None:
    """E (W, kept), F^H M F = E E^H along rows, or None where FFTs are cheaper.

    A product costs as many multiplications an entry as there are columns, an FFT the sum of the
    prime factors of W, those above 13 twice (libraries have no short formulas for them);
    measured in float32, they break even at 1.6 times this sum. Columns of zeros fill E to a
    multiple of eight, which the product takes faster than an odd number.
    """
    W, kept = mask.shape[0], torch.fft.ifftshift(mask).nonzero().flatten()
    if len(kept) > 1.6 * sum(p if p <= 13 else 2 * p for p in _prime_factors(W)):
        return None
    turns = torch.outer(torch.arange(W, device=kept.device), kept) % W
    angle = -2 * math.pi / W * turns.double()
    E = torch.polar(torch.full_like(angle, W**-0.5), angle)
    return torch.nn.functional.pad(E, (0, -len(kept) % 8))


def _prime_factors(n: int) -> Iterator[int]:
    """12 -> 2, 2, 3."""
    prime = 2
    while n > 1:
        while n % prime == 0:
            yield prime
            n //= prime
        prime += 1


def _to_kspace(x: Tensor) -> Tensor:
    return as_channels(fft2c(as_complex(x)))


def _from_kspace(z: Tensor) -> Tensor:
    return as_channels(ifft2c(as_complex(z)))


def _rows_columns(mask: Tensor) -> tuple[int, int]:
    return (1, mask.shape[0]) if mask.ndim == 1 else (mask.shape[0], mask.shape[1])


def _image_size(
    mask: Tensor, maps: Tensor | None, image_shape: Sequence[int] | None
) -> tuple[int, int]:
    if image_shape is not None:
        shape = tuple(int(n) for n in image_shape)
        if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] != 2):
            raise ValueError(f"image_shape must be (H, W) or (2, H, W); got {shape}")
        return shape[-2], shape[-1]
    if maps is not None and maps.ndim in (3, 4):
        return maps.shape[-2], maps.shape[-1]
    if mask.ndim < 2:
        raise ValueError("a mask (W,) without sens_maps needs image_shape=(H, W)")
    return mask.shape[-2], mask.shape[-1]


def _checked_kspace_mask(mask: Tensor, H: int, W: int) -> tuple[Tensor, int | None]:
    shape = tuple(mask.shape)
    if shape == (1, W) and H != 1:
        mask, shape = mask[0], (W,)
    if shape not in ((W,), (H, W)) and not (mask.ndim == 3 and shape[1:] in ((H, W), (1, W))):
        raise ValueError(f"mask must be (W,), (H, W) or (B, H, W) with ({H}, {W}); got {shape}")
    if shape == (H, W) and bool((mask == mask[:1]).all()):
        mask = mask[0]  # whole columns, which take less work
    if mask.ndim < 3:
        return mask, None
    if not bool(mask.flatten(1).any(1).all()):
        raise ValueError("mask is empty for some item: it measures nothing")
    return mask.expand(-1, H, W), mask.shape[0]


def _checked_maps(maps: Tensor | None, H: int, W: int) -> tuple[Tensor | None, int | None, int]:
    if maps is None:
        return None, None, 1
    if maps.ndim not in (3, 4) or tuple(maps.shape[-2:]) != (H, W):
        raise ValueError(
            f"sens_maps must be (coils, H, W) or (B, coils, H, W) with mask's ({H}, {W}); got "
            f"sens_maps {tuple(maps.shape)}"
        )
    if not maps.is_complex():
        raise ValueError(f"sens_maps must be complex; got {maps.dtype}")
    if not bool(torch.view_as_real(maps).isfinite().all()):
        raise ValueError("sens_maps hold NaN or infinite values")
    return maps, (maps.shape[0] if maps.ndim == 4 else None), maps.shape[-3]
