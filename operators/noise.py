"""Measurement noise: Gaussian, complex Gaussian, Poisson transmission; a function of (seed, item).

The draws of an item do not depend on the batch, its order or the device: Philox (Salmon et al.
2011), keyed by (seed, item), counter words (0, 0, stream << 48, draw), on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# The stream of measurement noise, apart from those that samplers use.
_MEASUREMENT = 3
_WORD = (1 << 64) - 1


def generator(seed: int, item: int, draw: int = 0) -> np.random.Generator:
    """The generator of one item's measurement noise; draw tells repeated measurements apart."""
    key = np.array([int(seed) & _WORD, int(item) & _WORD], dtype=np.uint64)
    counter = np.array([0, 0, _MEASUREMENT << 48, int(draw) & _WORD], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(counter=counter, key=key))


def standard_normal(
    like: Tensor, seed: int, items: Sequence[int] | None = None, draw: int = 0
) -> Tensor:
    """N(0, 1) of like's shape (B, *event), dtype and device; complex: N(0, 1) in either part."""
    parts = 2 if like.is_complex() else 1
    rows = _rows(
        like,
        items,
        lambda item, shape: generator(seed, item, draw).standard_normal(
            (parts, *shape), dtype=np.float32
        ),
    )
    rows = rows.to(like.real.dtype)
    return torch.complex(rows[:, 0], rows[:, 1]).to(like) if parts == 2 else rows[:, 0].to(like)


def add_gaussian(
    y: Tensor,
    noise_std: float | Tensor,
    *,
    seed: int,
    items: Sequence[int] | None = None,
    where: Tensor | None = None,
    draw: int = 0,
) -> Tensor:
    """y + noise_std n, n standard normal per real and imaginary part.

    noise_std: scalar, (B,), or broadcastable to y, in y's units; items: default 0 .. B-1; where:
    a mask broadcastable to y (entries not measured stay as they are).
    """
    std = torch.as_tensor(noise_std, dtype=y.real.dtype, device=y.device)
    if not bool(((std >= 0) & std.isfinite()).all()):
        raise ValueError("noise_std must be finite and >= 0")
    if std.ndim == 1:
        if len(std) not in (1, y.shape[0]):
            raise ValueError(f"noise_std must be (B,) with B = {y.shape[0]}; got {len(std)}")
        std = std.reshape(-1, *[1] * (y.ndim - 1))
    noise = std * standard_normal(y, seed, items, draw)
    return y + (noise if where is None else noise * where.to(y.real.dtype))


@dataclass(frozen=True)
class Transmission:
    """A log-transformed transmission scan.

    line_integrals: (B, *event), -log(counts / I0); weights: the inverse of their variance to
    first order, equal to the counts (Sauer & Bouman 1993), so noise_std = weights ** -0.5;
    starved: the share of detector readings that counted nothing, replaced by one photon.
    """

    line_integrals: Tensor
    weights: Tensor
    starved: float

    @property
    def noise_std(self) -> Tensor:
        return self.weights.rsqrt()


def poisson_transmission(
    line_integrals: Tensor,
    I0: float,
    *,
    seed: int,
    items: Sequence[int] | None = None,
    draw: int = 0,
) -> Transmission:
    """counts ~ Poisson(I0 exp(-p)) for line integrals p >= 0 without unit, then the logarithm.

    I0: photons an unattenuated ray counts. p: attenuation (1/mm) integrated over mm.
    """
    if not (np.isfinite(I0) and I0 > 0):
        raise ValueError(f"I0 must be a positive number of photons; got {I0}")
    p = line_integrals
    if p.is_complex() or not bool(p.isfinite().all()):
        raise ValueError("line_integrals must be real and finite")
    mean = I0 * torch.exp(-p.detach().double().cpu())

    def count(item: int, shape: tuple[int, ...]) -> np.ndarray:
        return generator(seed, item, draw).poisson(next(expected)).astype(np.float64)

    expected = iter(mean.numpy())
    counts = _rows(p, items, count)
    kept = counts.clamp_min(1.0)
    starved = float((counts < 1).double().mean())
    return Transmission((np.log(I0) - kept.log()).to(p), kept.to(p), starved)


def _rows(
    like: Tensor,
    items: Sequence[int] | None,
    draw: Callable[[int, tuple[int, ...]], np.ndarray],
) -> Tensor:
    """One draw an item, stacked on the CPU."""
    items = range(like.shape[0]) if items is None else items
    if len(items) != like.shape[0]:
        raise ValueError(f"{len(items)} items name the rows; got a batch {like.shape[0]}")
    return torch.from_numpy(np.stack([draw(int(item), tuple(like.shape[1:])) for item in items]))
