"""A^T A of Cartesian MRI without shifts, coil by coil.

F^H M F is a convolution and commutes with shifts, so those of the image cancel and only the mask
is rolled. A mask of whole columns leaves the transform along them and its inverse to cancel;
where it keeps few of them, two narrow matrices are cheaper than two FFTs. One coil at a time, of a
large image some rows at a time, stays in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

# Entries of a block of rows that a thread takes at once: 1 MB an array in complex64.
_SHARE = 1 << 17


def normal_of_coils(
    image: Tensor, maps: Tensor, mask: Tensor, dim: tuple[int, ...], frequencies: Tensor | None
) -> Tensor:
    """sum_c conj(S_c) F^H M F S_c image: image (B, H, W) complex, mask (1 or B, H or 1, W) rolled.

    maps: (coils, H, W) or one set an item; dim: the axes that M mixes; frequencies: what
    `few_frequencies` gave for masks of whole columns.
    """
    maps = maps if maps.ndim == 4 else maps[None]
    learned = torch.is_grad_enabled() and (image.requires_grad or maps.requires_grad)
    if learned or image.device.type != "cpu":
        k = filtered(maps * image[:, None], mask[:, None], dim)
        return (maps.conj() * k).sum(1)
    E, total = frequencies, torch.zeros_like(image)
    items = (v.expand(len(image), *v.shape[1:]) for v in (image, maps, mask, total))
    for u, S, M, out in zip(*items, strict=True):
        conjugated = _by_transforms(M, dim) if E is None else _by_products(E.to(u))
        _coil_by_coil(u, S, conjugated, dim, out)
    # The conjugate of the sum over coils was summed.
    return total.conj_physical_()


def filtered(image: Tensor, mask: Tensor, dim: tuple[int, ...]) -> Tensor:
    """F^H M F image, the mask unshifted."""
    k = torch.fft.fftn(image, dim=dim, norm="ortho")
    return torch.fft.ifftn(k * mask if k.requires_grad else k.mul_(mask), dim=dim, norm="ortho")


def _by_transforms(mask: Tensor, dim: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    """z -> conj(F^H M F z) = F conj(M F z): one real product masks and conjugates."""
    signed = torch.stack([mask, -mask], -1)

    def conjugated(z: Tensor) -> Tensor:
        k = torch.fft.fftn(z, dim=dim, norm="ortho")
        torch.view_as_real(k).mul_(signed)
        return torch.fft.fftn(k, dim=dim, norm="ortho")

    return conjugated


def _by_products(E: Tensor) -> Callable[[Tensor], Tensor]:
    """z -> conj(E E^H z) along rows, written over z."""
    return lambda z: torch.mm((z @ E).conj_physical_(), E.T, out=z)


def _coil_by_coil(
    image: Tensor,
    maps: Tensor,
    conjugated: Callable[[Tensor], Tensor],
    dim: tuple[int, ...],
    out: Tensor,
) -> None:
    """Adds sum_c S_c conj(P(S_c image)) to out, conjugated(z) = conj(P z), which may overwrite z.

    The conjugate of A^T A needs no conjugate maps. Where P acts along rows they go in blocks.
    """
    H, W = image.shape
    blocks = -(-H * W // (_SHARE * torch.get_num_threads())) if dim == (-1,) else 1
    for x, S, total in zip(*(v.chunk(blocks, -2) for v in (image, maps, out)), strict=True):
        coil_image = torch.empty_like(x)
        for S_c in S.unbind():
            total.addcmul_(S_c, conjugated(torch.mul(S_c, x, out=coil_image)))


def few_frequencies(mask: Tensor) -> Tensor | None:
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
