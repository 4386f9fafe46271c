"""Simulated receive arrays: coil maps evaluated on the field of view, drawn from a seed.

None is periodic or band-limited on it, so no map estimate meets the model that made its data.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from operators.mri.coils import birdcage_maps, unit_norm
from operators.noise import generator

_COILS = 2
ARRAYS = ("birdcage", "lobes", "loops", "one-sided")
# Pieces of wire that a loop is cut into.
WIRE = 32


def array_maps(kind: str, coils: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Maps (coils, H, W) complex64 of ARRAYS `kind`, sum over coils |.|^2 = 1; 1 coil is uniform.

    Pixel n // 2 is the centre, so that every second pixel of a grid twice as fine is one of these
    (birdcages reach from edge to edge instead).
    """
    if kind not in ARRAYS:
        raise ValueError(f"array must be one of {', '.join(ARRAYS)}; got {kind!r}")
    if coils == 1:
        return torch.ones(1, *size, dtype=torch.complex64)
    rng = generator(seed, 0, _COILS)
    if kind == "birdcage":
        radius, rotation = rng.uniform(1.2, 1.8), rng.uniform(0, 2 * math.pi)
        return birdcage_maps(coils, size, radius=radius, rotation=rotation)
    place = _pixels(size)
    if kind == "lobes":
        maps = [_lobe(place, 2 * math.pi * (c + rng.uniform(-0.05, 0.05)) / coils, rng)
                for c in range(coils)]  # fmt: skip
    else:
        arc = 2 * math.pi if kind == "loops" else math.pi
        maps = [_loop(place, arc * (c + 0.5 + rng.uniform(-0.2, 0.2)) / coils, rng)
                for c in range(coils)]  # fmt: skip
    return unit_norm(torch.from_numpy(np.stack(maps)).to(torch.complex64))


def _pixels(size: tuple[int, int]) -> np.ndarray:
    """(3, H, W): x, y, z = 0 of pixels, in half-heights of the field of view."""
    H, W = size
    y, x = np.meshgrid(
        (np.arange(H) - H // 2) / (H / 2), (np.arange(W) - W // 2) / (H / 2), indexing="ij"
    )
    return np.stack([x, y, np.zeros_like(x)])


def _edge(place: np.ndarray, angle: float, beyond: float) -> np.ndarray:
    """A point (3,) on the ellipse `beyond` the field of view."""
    half = np.abs(place[:2]).max((1, 2)) + beyond
    return np.array([half[0] * math.cos(angle), half[1] * math.sin(angle), 0.0])


def _lobe(place: np.ndarray, angle: float, rng: np.random.Generator) -> np.ndarray:
    """A Gaussian bump beside the field of view, half of it wide, with a linear phase."""
    far = place - _edge(place, angle, rng.uniform(0, 0.2))[:, None, None]
    slope, width = rng.uniform(-1.5, 1.5, 2), rng.uniform(0.8, 1.1)
    phase = slope[0] * place[0] + slope[1] * place[1] + rng.uniform(0, 2 * math.pi)
    return np.exp(-(far**2).sum(0) / width**2 + 1j * phase)


def _loop(place: np.ndarray, angle: float, rng: np.random.Generator) -> np.ndarray:
    """B_x - i B_y of a circular loop that faces the centre about, by the law of Biot and Savart."""
    centre = _edge(place, angle, rng.uniform(0.3, 0.5))
    centre[2] = rng.uniform(-0.3, 0.3)
    radius = rng.uniform(0.25, 0.45)
    normal = rng.normal(0, 0.2, 3) - centre * [1, 1, 0]
    u = np.cross(normal, [0.0, 0.0, 1.0])
    u, v = u / np.linalg.norm(u), np.cross(normal, u)
    v = v / np.linalg.norm(v)
    field = np.zeros_like(place)
    for turn in 2 * math.pi * (np.arange(WIRE) + 0.5) / WIRE:
        wire = centre + radius * (math.cos(turn) * u + math.sin(turn) * v)
        along = math.cos(turn) * v - math.sin(turn) * u
        r = place - wire[:, None, None]
        field += np.cross(along, r, axisb=0, axisc=0) / (r**2).sum(0) ** 1.5
    return (field[0] - 1j * field[1]) * np.exp(1j * rng.uniform(0, 2 * math.pi))
