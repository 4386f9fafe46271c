"""Random planes through volumes: the geometry that the training images of the priors share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from inverse_score.errors import BadInput


@dataclass(frozen=True)
class VoxelStack:
    """One prepared file: voxels (parts, slices, rows, columns) float32, sizes in mm.

    in_plane: the slices are too thick to cut across them.
    """

    name: str
    voxels: Tensor
    voxel: tuple[float, float, float]
    in_plane: bool

    @property
    def shape(self) -> np.ndarray:
        return np.array(self.voxels.shape[1:])


@dataclass(frozen=True)
class Plane:
    """The pixels center + i u + j v, in voxel coordinates (slice, row, column)."""

    center: np.ndarray
    u: np.ndarray
    v: np.ndarray
    warp: float = 0.0


def load_stacks(folder: Path) -> list[VoxelStack]:
    """The volumes and slices of a prepared folder, sorted by name."""
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise BadInput(f"{folder} holds no prepared files; run `inverse-score prepare`")
    return [load_stack(path) for path in files]


def load_stack(path: Path) -> VoxelStack:
    with np.load(path) as file:
        image, voxel = file["image"].astype(np.float32), tuple(file["voxel"].tolist())
        kind = str(file["kind"])
    parts = np.moveaxis(image, -1, 0) if image.ndim == 4 else image[None]
    voxels = torch.from_numpy(np.ascontiguousarray(parts))
    if kind != "slices" and max(voxel) < 0.7:
        # Averages at half a millimetre are smooth; at one they are as sharp as heads.
        voxels = functional.avg_pool3d(voxels, 2)
        voxel = tuple(2 * size for size in voxel)
    return VoxelStack(path.stem, voxels, voxel, kind == "slices")


def aligned_plane(stack: VoxelStack, rng: np.random.Generator) -> Plane:
    """One of the stack's own slices, or rows or columns of a volume, mirrored and turned at will:
    no interpolation, so edges stay as sharp as they were measured."""
    axis = 0 if stack.in_plane else int(rng.integers(3))
    center = 0.5 * (stack.shape - 1)
    low, high = (0.0, 1.0) if stack.in_plane else (0.15, 0.85)
    center[axis] = rng.integers(int(low * stack.shape[axis]), int(high * stack.shape[axis]))
    first, second = rng.permutation([a for a in range(3) if a != axis])
    u, v = np.eye(3)[first] * rng.choice([-1, 1]), np.eye(3)[second] * rng.choice([-1, 1])
    return Plane(np.floor(center), u, v)


def free_plane(
    stack: VoxelStack, rng: np.random.Generator, pixel: tuple[float, float], warp: float
) -> Plane:
    """A plane turned at random (for thick slices: within the slice) with pixels of log-uniform
    size between `pixel` (mm) and elastic displacements of about `warp` pixels."""
    size = np.exp(rng.uniform(*np.log(pixel)))
    if stack.in_plane:
        angle = rng.uniform(0, 2 * np.pi)
        frame = np.array([[0, np.cos(angle), np.sin(angle)], [0, -np.sin(angle), np.cos(angle)]])
        frame[1] *= rng.choice([-1, 1])
        shift = np.array([rng.uniform(-0.5, 0.5), 0, 0])
    else:
        frame = np.linalg.qr(rng.standard_normal((3, 3)))[0][:2]
        shift = rng.uniform(-0.25, 0.25, 3)
    center = (0.5 + shift) * (stack.shape - 1)
    if stack.in_plane:
        center[0] = rng.integers(stack.shape[0])
    u, v = frame * size / np.array(stack.voxel)
    return Plane(center, u, v, warp)


def cut(stack: VoxelStack, plane: Plane, size: int, rng: np.random.Generator, step: float = 1.0):
    """The plane's `size` x `size` pixels around its centre: (parts, size, size), zero outside.

    step: pixels of the plane between two of the result.
    """
    ticks = (np.arange(size) - size // 2) * step
    points = plane.center + ticks[:, None, None] * plane.u + ticks[None, :, None] * plane.v
    points = torch.from_numpy(points.astype(np.float32))
    if plane.warp:
        points += plane.warp * smooth_field(rng, size, 3) @ _plane_projector(plane)
    extent = torch.from_numpy(np.maximum(stack.shape - 1, 1).astype(np.float32))
    grid = (2 * points / extent - 1).flip(-1)
    sampled = functional.grid_sample(
        stack.voxels[None], grid[None, None], align_corners=True, padding_mode="zeros"
    )
    return sampled[0, :, 0]


def _plane_projector(plane: Plane) -> Tensor:
    """Displacements in pixels along u and v only, so that thick slices are never crossed."""
    frame = np.stack([plane.u, plane.v, np.zeros(3)]).astype(np.float32)
    return torch.from_numpy(frame)


def smooth_field(rng: np.random.Generator, size: int, parts: int, knots: int = 5) -> Tensor:
    """(size, size, parts) of unit-variance-ish noise, bicubic between knots x knots values."""
    values = torch.from_numpy(rng.standard_normal((1, parts, knots, knots)).astype(np.float32))
    field = functional.interpolate(values, (size, size), mode="bicubic", align_corners=True)
    return field[0].permute(1, 2, 0)


def recentred(plane: Plane, overview: Tensor, step: float, rng: np.random.Generator) -> Plane:
    """The plane moved to a random bright pixel of its overview (size, size) cut at `step`."""
    bright = torch.nonzero(overview > 0.1 * overview.max()).numpy()
    if not len(bright):
        return plane
    row, column = bright[rng.integers(len(bright))] + rng.uniform(-0.5, 0.5, 2)
    half = overview.shape[0] // 2
    # Whole pixels keep an aligned plane on its voxels.
    i, j = np.round((row - half) * step), np.round((column - half) * step)
    return Plane(plane.center + i * plane.u + j * plane.v, plane.u, plane.v, plane.warp)


def choose(weights: Sequence[float], rng: np.random.Generator) -> int:
    total = np.cumsum(weights)
    return int(np.searchsorted(total, rng.uniform(0, total[-1]), side="right"))
