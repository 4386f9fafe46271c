"""Poisson-disc, radial and spiral sampling on the Cartesian grid of (H, W) frequencies.

Each takes a generator, the size, the number of samples aimed at and a central region, and returns
the mask (H, W) that comes nearest to that number.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

_GOLDEN = math.pi * (math.sqrt(5) - 1) / 2


def poisson_disc(
    rng: np.random.RandomState, size: tuple[int, int], target: int, middle: np.ndarray
) -> np.ndarray:
    """Dart throwing: a sample keeps others out of a disc of radius r0 (1 + 4 |k|), |k| <= sqrt 2.

    r0 is found by bisection; every radius tries the same random order of the grid.
    """
    H, W = size
    row, column = np.divmod(rng.permutation(H * W), W)
    distance = np.hypot((row - H // 2) / (H / 2), (column - W // 2) / (W / 2))
    darts = list(zip(row.tolist(), column.tolist(), (1 + 4 * distance).tolist(), strict=True))
    low, high, best = 0.0, 1.5 * math.sqrt(H * W / target), middle
    for _ in range(12):
        r0 = (low + high) / 2
        mask = _throw(darts, r0, size, middle, 1.2 * target)
        if abs(int(mask.sum()) - target) < abs(int(best.sum()) - target):
            best = mask
        if mask.sum() > target:
            low = r0
        else:
            high = r0
        if abs(int(best.sum()) - target) <= 0.005 * target:
            break
    return best


def _throw(
    darts: list[tuple[int, int, float]],
    r0: float,
    size: tuple[int, int],
    middle: np.ndarray,
    limit: float,
) -> np.ndarray:
    """One pass over the darts, stopped once it holds more than `limit` samples."""
    pad = math.ceil(r0 * (1 + 4 * math.sqrt(2))) + 1
    pad = min(pad, 2 * max(size))
    taken = np.zeros((size[0] + 2 * pad, size[1] + 2 * pad), bool)
    mask, count = middle.copy(), 0
    discs: dict[int, np.ndarray] = {}
    for i, j, scale in darts:
        if taken[i + pad, j + pad]:
            continue
        radius = r0 * scale
        n = min(math.ceil(radius), pad)
        # Radii equal to a 16th of a pixel share one stencil.
        key = round(16 * radius)
        if key not in discs:
            u = np.arange(-n, n + 1)
            discs[key] = u[:, None] ** 2 + u[None] ** 2 < max(key / 16, 0.5) ** 2
        disc = discs[key]
        n = disc.shape[0] // 2
        taken[i + pad - n : i + pad + n + 1, j + pad - n : j + pad + n + 1] |= disc
        mask[i, j] = True
        count += 1
        if count > limit:
            break
    return mask


def radial(
    rng: np.random.RandomState, size: tuple[int, int], target: int, middle: np.ndarray
) -> np.ndarray:
    """Golden-angle spokes through the centre, their first angle drawn (Winkelmann et al. 2007)."""
    first = rng.uniform(0, math.pi)

    def spokes(count: int) -> np.ndarray:
        angle = first + _GOLDEN * np.arange(count)
        radius = np.linspace(-1, 1, 4 * max(size))
        return _rasterised(
            radius[None] * np.cos(angle)[:, None], radius[None] * np.sin(angle)[:, None], size
        )

    return _nearest_count(spokes, middle, target, 4 * max(size))


def spiral(
    rng: np.random.RandomState, size: tuple[int, int], target: int, middle: np.ndarray
) -> np.ndarray:
    """16 interleaves k = u^1.5 exp(i phi(u)), denser at the centre; turns follow from target."""
    first = rng.uniform(0, 2 * math.pi)

    def arms(turns: int) -> np.ndarray:
        u = np.linspace(0, 1, 4 * max(size) + math.ceil(0.4 * turns * max(size)))
        phase = 2 * math.pi * (np.arange(16)[:, None] / 16 + turns / 16 * u[None]) + first
        return _rasterised(u**1.5 * np.cos(phase), u**1.5 * np.sin(phase), size)

    return _nearest_count(arms, middle, target, max(size))


def _rasterised(kx: np.ndarray, ky: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The grid's nearest entries to points of the unit disc (radius 1 is the grid's edge)."""
    H, W = size
    row = np.rint(H // 2 + ky * (H - 1) / 2).astype(int).ravel()
    column = np.rint(W // 2 + kx * (W - 1) / 2).astype(int).ravel()
    inside = (row >= 0) & (row < H) & (column >= 0) & (column < W)
    mask = np.zeros(size, bool)
    mask[row[inside], column[inside]] = True
    return mask


def _nearest_count(
    draw: Callable[[int], np.ndarray], middle: np.ndarray, target: int, most: int
) -> np.ndarray:
    """draw(n) | middle for the n in 1 .. most whose number of samples is nearest to the target."""
    low, high, best = 1, most, draw(1) | middle
    while low <= high:
        n = (low + high) // 2
        mask = draw(n) | middle
        if abs(int(mask.sum()) - target) < abs(int(best.sum()) - target):
            best = mask
        if mask.sum() < target:
            low = n + 1
        else:
            high = n - 1
    return best
