"""Training images of the body CT prior: axial planes in Hounsfield units, at any pixel size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from .planes import (
    Plane,
    VoxelStack,
    aligned_plane,
    choose,
    cut,
    free_plane,
    load_stacks,
    recentred,
)

# data = scale u + offset: u runs from -0.5 (air) to 3.5 (dense metal), soft tissue at 0.5.
RANGE = (1000.0, -500.0)
AIR = -1000.0
WEIGHTS = {
    "lung1": 0.12, "lung1 halved": 0.34, "thorax": 0.34, "abdomen": 0.05, "abdomen-dicom": 0.08,
    "abdomen-dicom halved": 0.07,
}  # fmt: skip
PIXEL = (0.7, 2.0)
OVERVIEW = 56
_NODES = np.array([-1000.0, -700.0, -120.0, 20.0, 90.0, 300.0, 1000.0, 3500.0])


class Bodies(Dataset):
    """Image `index` (1, size, size) of an endless set, in Hounsfield units.

    A pure function of (seed, index). Scans finer than 1.2 mm also come at half their resolution,
    averaged: what a 256 x 256 reconstruction of the same field of view shows. HU below air count
    as air, so that scanners' padding does not teach a value that no tissue has.
    """

    def __init__(self, folder: str | Path, size: int = 128, length: int = 100_000, seed: int = 0):
        self.size, self.length, self.seed = size, length, seed
        # Zero outside is air for grid_sample's padding; thick or not, planes stay axial.
        stacks = [
            replace(stack, voxels=stack.voxels.clamp(min=AIR) - AIR, in_plane=True)
            for stack in load_stacks(Path(folder))
        ]
        self.stacks = stacks + [halved(stack) for stack in stacks if stack.voxel[1] < 1.2]
        self.weights = [WEIGHTS.get(stack.name, 0.2) for stack in self.stacks]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Tensor:
        rng = np.random.default_rng([self.seed, int(index)])
        stack = self.stacks[choose(self.weights, rng)]
        aligned = rng.random() < 0.5
        plane = aligned_plane(stack, rng) if aligned else free_plane(stack, rng, PIXEL, 1.5)
        step = 1.2 * max(stack.shape[1:]) / np.linalg.norm(plane.u) / OVERVIEW
        overview = cut(stack, Plane(plane.center, plane.u, plane.v), OVERVIEW, rng, step)[0]
        hounsfield = cut(stack, recentred(plane, overview, step, rng), self.size, rng) + AIR
        return other_patient(hounsfield, rng)


def halved(stack: VoxelStack) -> VoxelStack:
    """Pixels averaged two by two within each slice."""
    voxels = functional.avg_pool2d(stack.voxels, 2)
    thick, rows, columns = stack.voxel
    voxel = (thick, 2 * rows, 2 * columns)
    return VoxelStack(f"{stack.name} halved", voxels, voxel, stack.in_plane)


def other_patient(hounsfield: Tensor, rng: np.random.Generator) -> Tensor:
    """HU through a random increasing curve near the identity: fat, contrast agent and bone vary
    between patients and beam energies; air stays at -1000."""
    if rng.random() < 0.4:
        return hounsfield
    steps = np.diff(_NODES) * np.exp(0.12 * rng.standard_normal(len(_NODES) - 1))
    values = AIR + np.concatenate([[0.0], np.cumsum(steps)])
    # Soft tissue is known to tens of HU, whatever lung and fat did below it.
    values[1:] += _NODES[3] + 15 * rng.standard_normal() - values[3]
    values[1] = max(values[1], AIR + 100)
    curve = np.interp(hounsfield.numpy(), _NODES, values)
    return torch.from_numpy(curve.astype(np.float32))
