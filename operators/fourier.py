"""The centred orthonormal Fourier transform, right at odd sizes, and the Hartley transform."""

from __future__ import annotations

import functools
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
    sizes = tuple((d % x.ndim - x.ndim, x.shape[d]) for d in dim)
    before, after = _signs(sizes, x.dtype, x.device)
    y = transform(x * before, dim=dim, norm="ortho")
    return y * after if y.requires_grad else y.mul_(after)


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)  # what is kept may be needed by autograd later
def _signs(
    sizes: tuple[tuple[int, int], ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """(-1)^(i + j + ...) over axes of these (negative number, size), and the same times that of
    N / 2 over all, shaped to multiply tensors that have these axes."""
    rank = -min(axis for axis, _ in sizes)
    signs = torch.ones([1] * rank, dtype=dtype, device=device)
    for axis, size in sizes:
        shape = [1] * rank
        shape[axis] = size
        alternating = 1 - 2 * (torch.arange(size, device=device) % 2)
        signs = signs * alternating.to(dtype).reshape(shape)
    return signs, signs * math.prod((-1) ** (size // 2) for _, size in sizes)


def hartley2(x: Tensor) -> Tensor:
    """Re F x - Im F x over the last two axes, x real: orthogonal and its own inverse."""
    k = torch.fft.fftn(x, dim=LAST_TWO, norm="ortho")
    return k.real - k.imag
