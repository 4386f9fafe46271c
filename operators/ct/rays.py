"""Which pixels a ray meets and with what weight: Joseph's linear interpolation (1982).

Ray {X cos theta + Y sin theta = s}, unit pixels, X to the right and Y upwards from the image's
centre. It is sampled where it crosses the centre line of each row (or column, whichever it
crosses at the wider angle); along that line the image is interpolated linearly and is zero beyond
its edge pixels. The position on line r is affine, a + b r, and the weights sum to `step`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rays:
    """Positions a + b r (in pixels) on lines r, length `step` of a ray between lines, all (R,).

    steep: whether lines are rows (position = column), else columns (position = row).
    """

    a: np.ndarray
    b: np.ndarray
    step: np.ndarray
    steep: np.ndarray
    size: tuple[int, int]

    def __getitem__(self, index: np.ndarray) -> Rays:
        return Rays(self.a[index], self.b[index], self.step[index], self.steep[index], self.size)

    def __len__(self) -> int:
        return len(self.a)

    def lines(self) -> np.ndarray:
        """How many lines each ray crosses between the image's outermost neighbours, (R,)."""
        H, W = self.size
        count, length = np.where(self.steep, H, W), np.where(self.steep, W, H)
        slope = np.where(np.abs(self.b) < 1e-12, 1e-12, self.b)
        ends = np.sort([(-1 - self.a) / slope, (length - self.a) / slope], axis=0)
        first, last = np.maximum(ends[0], 0), np.minimum(ends[1], count - 1)
        return np.maximum(np.floor(last) - np.ceil(first) + 1, 0).astype(np.int64)


def joseph_rays(theta: np.ndarray, s: np.ndarray, size: tuple[int, int]) -> Rays:
    """Rays (R,) through an (H, W) image; theta in radians, s in pixels."""
    H, W = size
    cos, sin = np.cos(theta), np.sin(theta)
    steep = np.abs(cos) >= np.abs(sin)
    major, minor = np.where(steep, cos, sin), np.where(steep, sin, cos)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Row r lies at Y = (H - 1) / 2 - r, column c at X = c - (W - 1) / 2.
        a_steep = (s - (H - 1) / 2 * sin) / cos + (W - 1) / 2
        a_flat = (H - 1) / 2 - (s + (W - 1) / 2 * cos) / sin
    return Rays(np.where(steep, a_steep, a_flat), minor / major, 1 / np.abs(major), steep, (H, W))


def sparse_rows(rays: Rays, dtype: type) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """CSR arrays (indptr, indices, weights) over pixels in column-major order, col * H + row.

    Neighbouring samples of a steep ray are then neighbours in memory.
    """
    counts = np.zeros(len(rays), np.int64)
    parts = []
    per_chunk = max(1, 1_000_000 // max(rays.size))
    for steep in (True, False):
        chosen = np.flatnonzero(rays.steep == steep)
        for start in range(0, len(chosen), per_chunk):
            chunk = chosen[start : start + per_chunk]
            pixel, weight, counts[chunk] = _samples(rays[chunk], steep, dtype)
            parts.append((chunk, pixel, weight))
    indptr = np.zeros(len(rays) + 1, np.int64)
    np.cumsum(counts, out=indptr[1:])
    indices, weights = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], dtype)
    while parts:
        chunk, pixel, weight = parts.pop()
        if chunk[-1] - chunk[0] + 1 == len(chunk):
            place: slice | np.ndarray = slice(indptr[chunk[0]], indptr[chunk[-1] + 1])
        else:
            sizes = counts[chunk]
            ends = np.cumsum(sizes)
            place = np.repeat(indptr[chunk] - (ends - sizes), sizes) + np.arange(ends[-1])
        indices[place], weights[place] = pixel, weight
    return indptr, indices, weights


def _samples(rays: Rays, steep: bool, dtype: type) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(pixel, weight) in the order of the rays, and how many each ray has."""
    H, W = rays.size
    lines, length = (H, W) if steep else (W, H)
    r = np.arange(lines, dtype=np.int32)
    position = rays.a[:, None] + rays.b[:, None] * r
    below = np.floor(position)
    part = ((position - below) * rays.step[:, None]).astype(dtype)
    below = below.astype(np.int32)
    weight = np.stack([rays.step[:, None].astype(dtype) - part, part], -1)
    inside = np.stack([below, below + 1], -1)
    inside = (inside >= 0) & (inside < length) & (weight > 0)
    along, across = (H, r) if steep else (1, r * H)
    pixel = below * np.int32(along) + across
    pixel = np.stack([pixel, pixel + np.int32(along)], -1)
    return pixel[inside], weight[inside], inside.reshape(len(rays), -1).sum(1)
