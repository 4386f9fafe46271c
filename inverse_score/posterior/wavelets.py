"""Psi: the periodic orthonormal Daubechies-4 wavelet transform of images."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

# Daubechies 1988, table 1: the scaling filter with four vanishing moments.
DB4 = (
    0.23037781330889650, 0.71484657055291565, 0.63088076792985890, -0.02798376941685985,
    -0.18703481171909309, 0.03084138183556076, 0.03288301166688520, -0.01059740178506903,
)  # fmt: skip


def psi(x: Tensor) -> Tensor:
    """Periodic orthonormal Daubechies-4 transform of (B, C, H, W), up to four levels."""
    z = x.clone()
    for h, w in _sizes(x.shape[-2:]):
        z[..., :h, :w] = _filters(h, x) @ z[..., :h, :w] @ _filters(w, x).T
    return z


def psi_inverse(z: Tensor) -> Tensor:
    """The inverse and transpose of `psi`."""
    x = z.clone()
    for h, w in reversed(_sizes(z.shape[-2:])):
        x[..., :h, :w] = _filters(h, z).T @ x[..., :h, :w] @ _filters(w, z)
    return x


def levels(shape: Any) -> int:
    """How often both sizes halve, at most 4 and not below 4 pixels."""
    level = 0
    while level < 4 and all((n >> level) % 2 == 0 and (n >> level) >= 8 for n in shape):
        level += 1
    return level


def _sizes(shape: Any) -> list[tuple[int, int]]:
    return [(shape[0] >> k, shape[1] >> k) for k in range(levels(shape))]


def _filters(size: int, like: Tensor) -> Tensor:
    """Rows: size / 2 low-pass filters at even shifts, then as many high-pass ones, periodic."""
    return _filter_matrix(size, like.dtype, like.device)


@functools.lru_cache(maxsize=64)
def _filter_matrix(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    matrix = torch.zeros(size, size, dtype=torch.float64)
    for k in range(size // 2):
        for n, h in enumerate(DB4):
            matrix[k, (2 * k + n) % size] += h
            matrix[size // 2 + k, (2 * k + n) % size] += (-1) ** n * DB4[len(DB4) - 1 - n]
    return matrix.to(dtype).to(device)
