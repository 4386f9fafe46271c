"""Symmetries of the pixel grid: rays that are images of each other share one row of a matrix.

A rotation or mirror g of the grid turns the ray (theta0, s) into (theta, s), so the integral of x
along (theta, s) is the integral of x o g along (theta0, s). With equispaced angles and a
centred detector the eight symmetries of a square leave an eighth of the rays to be stored, and
the product with eight turned copies of x reads each stored number once for all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

QUARTER, TURN = math.pi / 2, 2 * math.pi


@dataclass(frozen=True)
class Folding:
    """Ray i is row[i] of the stored rays (theta, s), applied to copy[i] of the turned images.

    elements: the (quarter turns k, mirrored m) used; copy indexes them.
    """

    theta: np.ndarray
    s: np.ndarray
    row: np.ndarray
    copy: np.ndarray
    elements: list[tuple[int, int]]


def fold(theta: np.ndarray, s: np.ndarray, square: bool, pixels: int) -> Folding:
    """The folding of rays (R,) that stores the fewest rows without wasting copies.

    Groups are tried from large to small; one that would compute more than 1.3 times the rays
    asked for is passed over. Below 64 x 64 pixels nothing is gained.
    """
    best = _folding(theta, s, "none")
    if pixels < 4096:
        return best
    for group in ("D4", "C4") if square else ():
        found = _folding(theta, s, group)
        if _fits(found, len(theta)) and len(found.theta) < len(best.theta):
            return found
    for group in ("K4", "C2", "R4") if square else ("K4", "C2"):
        found = _folding(theta, s, group)
        if _fits(found, len(theta)) and len(found.theta) < 0.8 * len(best.theta):
            return found
    return best


def _fits(folding: Folding, rays: int) -> bool:
    return len(folding.theta) * len(folding.elements) <= 1.3 * rays


def _folding(theta: np.ndarray, s: np.ndarray, group: str) -> Folding:
    theta0, s0, k, m = _reduced(theta, s, group)
    # Rays closer than 1e-9 are one; the first of them speaks for all, unrounded.
    key = np.round(theta0, 9) + 1j * np.round(s0, 9)
    _, first, row = np.unique(key, return_index=True, return_inverse=True)
    code = 2 * k + m
    used = np.unique(code)
    copy = np.searchsorted(used, code)
    elements = [(int(c) // 2, int(c) % 2) for c in used]
    return Folding(theta0[first], s0[first], row.ravel(), copy, elements)


def _reduced(
    theta: np.ndarray, s: np.ndarray, group: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """theta = (-1)^m theta0 + k pi / 2 up to whole turns, (k, m) in the group."""
    zero = np.zeros(len(theta), np.int64)
    if group == "none":
        # (theta, s) and (theta + pi, -s) are one line.
        half = np.floor((theta + 1e-10) / math.pi)
        return theta - half * math.pi, np.where(half % 2 == 0, s, -s), zero, zero
    if group == "R4":
        # Quarter turns alone, for detectors that are not centred.
        k = np.floor(np.mod(theta + 1e-10, TURN) / QUARTER).astype(np.int64)
        return np.mod(theta + 1e-10, TURN) - 1e-10 - k * QUARTER, s, k, zero
    negative = s < -1e-9
    s = np.abs(s)
    theta = np.mod(theta + np.where(negative, math.pi, 0.0) + 1e-10, TURN) - 1e-10
    unit = QUARTER if group in ("D4", "C4") else math.pi
    turns = np.rint(theta / unit).astype(np.int64)
    rest = theta - turns * unit
    k = turns * (1 if unit == QUARTER else 2) % 4
    if group in ("C4", "C2"):
        return rest, s, k, zero
    mirrored = rest < -1e-10
    return np.abs(rest), s, k, mirrored.astype(np.int64)


def turned_pixels(size: tuple[int, int], elements: list[tuple[int, int]]) -> np.ndarray:
    """(H W, copies) int32: where in the row-major image the turned copy's pixel is read.

    Pixels are listed in column-major order, col * H + row; copy g at p holds x(g p), g a
    mirror Y -> -Y if m, then k counter-clockwise quarter turns.
    """
    H, W = size
    column, row = np.divmod(np.arange(H * W, dtype=np.int64), H)
    # Twice the coordinates, so that they are whole at odd and even sizes.
    X, Y = 2 * column - (W - 1), (H - 1) - 2 * row
    sources = []
    for k, m in elements:
        gx, gy = X, -Y if m else Y
        for _ in range(k):
            gx, gy = -gy, gx
        sources.append(((H - 1) - gy) // 2 * W + (gx + (W - 1)) // 2)
    return np.stack(sources, -1).astype(np.int32)


@dataclass(frozen=True)
class Orbits:
    """Pixel p, listed in column-major order, is members[member[p]] of pixel first[orbit[p]].

    orbit and member: (H W,); first: (N,) column-major. Orbits of neighbouring numbers lie near
    each other: they follow a Morton curve.
    """

    orbit: np.ndarray
    member: np.ndarray
    first: np.ndarray
    members: list[tuple[int, int]]


def orbits(size: tuple[int, int], elements: list[tuple[int, int]]) -> Orbits:
    """The orbits of pixels under the largest group M for which elements M = elements."""
    H, W = size
    dihedral = [(k, m) for k in range(4) for m in (0, 1)]
    members = [h for h in dihedral if {after(g, h) for g in elements} == set(elements)]
    rasters = turned_pixels(size, members)
    # The first pixel of an orbit in raster order is h p, so p is the inverse of h, applied to it.
    chosen, first = rasters.argmin(1), rasters.min(1)
    inverse = np.array([[after(g, h) for g in members].index((0, 0)) for h in members])
    curve = np.zeros(H * W, np.int64)
    for bit in range(max(size).bit_length()):
        curve |= ((first % W >> bit) & 1).astype(np.int64) << 2 * bit
        curve |= ((first // W >> bit) & 1).astype(np.int64) << 2 * bit + 1
    _, example, orbit = np.unique(curve, return_index=True, return_inverse=True)
    first = first[example]
    return Orbits(orbit, inverse[chosen], first % W * H + first // W, members)


def after(g: tuple[int, int], h: tuple[int, int]) -> tuple[int, int]:
    """g h, h applied first: a mirror turns a rotation before it into its inverse."""
    return (g[0] + (-h[0] if g[1] else h[0])) % 4, g[1] ^ h[1]
