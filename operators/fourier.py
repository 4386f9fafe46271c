"""The centred orthonormal Fourier transform, right at odd sizes, and the Hartley transform."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

LAST_TWO = (-2, -1)


def fft2c(x: Tensor, dim: Sequence[int] = LAST_TWO) -> Tensor:
    """k = F x: pixel n // 2 is the origin of space, entry n // 2 the frequency zero."""
    k = torch.fft.fftn(torch.fft.ifftshift(x, dim=dim), dim=dim, norm="ortho")
    return torch.fft.fftshift(k, dim=dim)


def ifft2c(k: Tensor, dim: Sequence[int] = LAST_TWO) -> Tensor:
    """x = F^-1 k = F^H k."""
    x = torch.fft.ifftn(torch.fft.ifftshift(k, dim=dim), dim=dim, norm="ortho")
    return torch.fft.fftshift(x, dim=dim)


def hartley2(x: Tensor) -> Tensor:
    """Re F x - Im F x over the last two axes, x real: orthogonal and its own inverse."""
    k = torch.fft.fftn(x, dim=LAST_TWO, norm="ortho")
    return k.real - k.imag
