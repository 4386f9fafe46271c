"""The centred orthonormal Fourier transform, right at odd sizes, and the Hartley transform."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

LAST_TWO = (-2, -1)


def fft2c(x: Tensor, dim: Sequence[int] = LAST_TWO) -> Tensor:
    """k = F x: pixel n // 2 is the origin of space, entry n // 2 the frequency zero."""
    return _centred(torch.fft.fftn, x, dim)


def ifft2c(k: Tensor, dim: Sequence[int] = LAST_TWO) -> Tensor:
    """x = F^-1 k = F^H k."""
    return _centred(torch.fft.ifftn, k, dim)


def _centred(transform: Callable[..., Tensor], x: Tensor, dim: Sequence[int]) -> Tensor:
    """transform between shifts; of even sizes between changes of sign, five times quicker.

    A shift by N / 2 before a transform of length N changes the sign of every second entry after
    it, and the other way round; together the two also give (-1)^(N / 2).
    """
    if any(x.shape[d] % 2 for d in dim):
        y = transform(torch.fft.ifftshift(x, dim=dim), dim=dim, norm="ortho")
        return torch.fft.fftshift(y, dim=dim)
    x = x if x.is_complex() else torch.complex(x, torch.zeros_like(x))
    y = transform(x * _signs(x, dim, 1), dim=dim, norm="ortho")
    signs = _signs(x, dim, math.prod((-1) ** (x.shape[d] // 2) for d in dim))
    return y * signs if y.requires_grad else y.mul_(signs)


def _signs(like: Tensor, dim: Sequence[int], factor: int) -> Tensor:
    """factor (-1)^(i + j + ...) over the axes dim, shaped to multiply like."""
    signs = torch.full([1] * like.ndim, factor, dtype=like.dtype, device=like.device)
    for d in dim:
        shape = [1] * like.ndim
        shape[d] = like.shape[d]
        alternating = 1 - 2 * (torch.arange(like.shape[d], device=like.device) % 2)
        signs = signs * alternating.to(like.dtype).reshape(shape)
    return signs


def hartley2(x: Tensor) -> Tensor:
    """Re F x - Im F x over the last two axes, x real: orthogonal and its own inverse."""
    k = torch.fft.fftn(x, dim=LAST_TWO, norm="ortho")
    return k.real - k.imag
