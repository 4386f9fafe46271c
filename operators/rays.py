"""Which pixels a ray meets and with what weight: Joseph's linear interpolation (1982)."""

from __future__ import annotations

import numpy as np

Triplets = tuple[np.ndarray, np.ndarray, np.ndarray]


def joseph(
    theta: np.ndarray, s: np.ndarray, size: tuple[int, int], dtype: type = np.float32
) -> Triplets:
    """CSR arrays (indptr, indices, weights) of line integrals over an (H, W) image, unit pixels.

    Ray r is {X cos theta_r + Y sin theta_r = s_r}; the origin is the image's centre, X runs along
    a row to the right and Y upwards, opposite to the row index. The ray is sampled where it
    crosses each row's (or column's) centre line, whichever it crosses at the wider angle, and
    the image is interpolated linearly along that line and is zero beyond its edge pixels.
    """
    H, W = size
    counts = np.zeros(len(s), np.int64)
    steep = np.abs(np.cos(theta)) >= np.abs(np.sin(theta))
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for flag in (True, False):
        rays = np.flatnonzero(steep == flag)
        for chunk in np.array_split(rays, max(1, len(rays) * max(H, W) // 4_000_000)):
            if len(chunk):
                ray, column, weight = _samples(theta[chunk], s[chunk], H, W, flag)
                counts[chunk] = np.bincount(ray, minlength=len(chunk))
                parts.append((chunk, column.astype(np.int32), weight.astype(dtype)))
    indptr = np.zeros(len(s) + 1, np.int64)
    np.cumsum(counts, out=indptr[1:])
    indices, weights = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], dtype)
    for chunk, column, weight in parts:
        sizes = counts[chunk]
        first = np.repeat(indptr[chunk] - np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes)
        place = first + np.arange(len(column))
        indices[place], weights[place] = column, weight
    return indptr, indices, weights


def _samples(theta: np.ndarray, s: np.ndarray, H: int, W: int, steep: bool) -> Triplets:
    """(ray, pixel, weight) of rays that all cross rows (steep) or all cross columns."""
    cos, sin = np.cos(theta)[:, None], np.sin(theta)[:, None]
    if steep:
        row = np.arange(H)
        Y = (H - 1) / 2 - row
        crossing, step = (s[:, None] - Y * sin) / cos + (W - 1) / 2, 1 / np.abs(cos)
        length, stride, along = W, 1, row * W
    else:
        column = np.arange(W)
        X = column - (W - 1) / 2
        crossing, step = (H - 1) / 2 - (s[:, None] - X * cos) / sin, 1 / np.abs(sin)
        length, stride, along = H, W, column
    below = np.floor(crossing).astype(np.int64)
    part = crossing - below
    index = np.stack([below, below + 1], -1)
    weight = np.stack([1 - part, part], -1) * step[..., None]
    inside = (index >= 0) & (index < length) & (weight > 0)
    pixel = index * stride + along[None, :, None]
    ray = np.broadcast_to(np.arange(len(s))[:, None, None], inside.shape)
    return ray[inside], pixel[inside], weight[inside]
