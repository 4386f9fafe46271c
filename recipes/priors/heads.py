"""Training images of the brain prior: planes through heads as an MRI scanner would see them.

x (2, size, size) is the real and imaginary part of an image whose 99th percentile of magnitude is
about 1: what the MRI recipe hands to a prior after it divided by coil maps (which take most of the
phase along) and by the 99th percentile of the combined low-resolution image.
"""

from __future__ import annotations

from collections.abc import Callable
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
    smooth_field,
)

# People before averages, sharp before smooth; a file that is not listed counts 0.2.
WEIGHTS = {
    "colin27": 0.3, "s1": 0.25, "brain1": 0.22, "mni152": 0.06, "template-t1": 0.07,
    "mni152-tissue": 0.1,
}  # fmt: skip
PIXEL = (0.6, 1.5)
OVERVIEW = 56
_WHITE, _GREY, _FLUID = (0.70, 800.0, 80.0), (0.82, 1300.0, 100.0), (1.0, 4000.0, 1500.0)

Contrast = Callable[[Tensor], Tensor]


class Heads(Dataset):
    """Image `index` of an endless set: a pure function of (seed, index).

    folder: the `train` or `held_out` folder that `prepare` filled; length: what len() says.
    """

    def __init__(self, folder: str | Path, size: int = 128, length: int = 100_000, seed: int = 0):
        self.size, self.length, self.seed = size, length, seed
        self.stacks = [with_fluid(stack) for stack in load_stacks(Path(folder))]
        self.weights = [WEIGHTS.get(stack.name, 0.2) for stack in self.stacks]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Tensor:
        rng = np.random.default_rng([self.seed, int(index)])
        stack = self.stacks[choose(self.weights, rng)]
        while (image := magnitude(stack, self.size, rng)) is None:
            pass
        return with_phase(image, rng)


def with_fluid(stack: VoxelStack) -> VoxelStack:
    """Grey and white matter maps completed by fluid: what is left of 1 within the head's hull."""
    if stack.voxels.shape[0] != 2:
        return stack
    maps = stack.voxels / stack.voxels.max()
    tissue = (maps.sum(0, keepdim=True) > 0.5).float()
    hull = functional.avg_pool3d(tissue, 11, stride=1, padding=5) > 0.35
    fluid = (1 - maps.sum(0, keepdim=True)).clamp(0, 1) * hull
    return VoxelStack(stack.name, torch.cat([maps, fluid]), stack.voxel, stack.in_plane)


def magnitude(stack: VoxelStack, size: int, rng: np.random.Generator) -> Tensor | None:
    """(size, size) of a random plane, contrast and coil shading; None where it met only air."""
    aligned = rng.random() < (0.6 if stack.in_plane else 0.45)
    plane = aligned_plane(stack, rng) if aligned else free_plane(stack, rng, PIXEL, 1.5)
    # The overview reaches half again over the whole stack, whatever the plane's direction.
    reach = 1.2 * max(stack.shape[1:]) / min(np.linalg.norm(plane.u), np.linalg.norm(plane.v))
    step = reach / OVERVIEW
    still = Plane(plane.center, plane.u, plane.v)
    overview = cut(stack, still, OVERVIEW, rng, step)
    contrast = random_contrast(stack, overview, rng)
    seen = contrast(overview)
    scale = torch.quantile(seen, 0.99)
    if (seen > 0.1 * scale).float().mean() < 0.05 or scale <= 0:
        return None
    image = contrast(cut(stack, recentred(plane, seen, step, rng), size, rng)) / scale
    shading = torch.exp(rng.uniform(0, 0.2) * smooth_field(rng, size, 1, knots=4)[..., 0])
    return image * shading * float(np.exp(0.15 * rng.standard_normal()))


def random_contrast(stack: VoxelStack, overview: Tensor, rng: np.random.Generator) -> Contrast:
    """A map from the stack's parts to one intensity: spin echo for tissue maps; for a head's
    intensities a power, or a random curve that keeps air dark, or nothing."""
    if stack.voxels.shape[0] == 3:
        return spin_echo(rng)
    top = torch.quantile(overview[0], 0.99).clamp(min=1e-6)
    chance = rng.random()
    if chance < 0.35:
        return lambda parts: parts[0].clamp(min=0)
    if chance < 0.7:
        power = rng.uniform(0.65, 1.5)
        return lambda parts: (parts[0] / top).clamp(0, 2) ** power
    nodes = np.array([0.0, 0.08, 0.22, 0.38, 0.54, 0.7, 0.86, 1.02, 1.4])
    values = np.concatenate([[0.0, 0.04], rng.uniform(0.1, 1.0, len(nodes) - 2)])
    values[2] = 0.6 * values[2]

    def curve(parts: Tensor) -> Tensor:
        return torch.from_numpy(np.interp((parts[0] / top).numpy(), nodes, values)).float()

    return curve


def spin_echo(rng: np.random.Generator) -> Contrast:
    """S = sum_k p_k PD_k (1 - exp(-TR / T1_k)) exp(-TE / T2_k), sometimes with inversion
    (|1 - 2 exp(-TI / T1) + exp(-TR / T1)|), tissue constants of 1.5 to 3 T varied by a tenth.

    p_k are the maps raised to a power and renormalised: averages are smoother than any person.
    """
    density, t1, t2 = np.array([_GREY, _WHITE, _FLUID]).T * np.exp(
        0.1 * rng.standard_normal((3, 3))
    )
    repetition, echo = np.exp(rng.uniform(np.log([400, 8]), np.log([6000, 120])))
    recovered = 1 - np.exp(-repetition / t1)
    if rng.random() < 0.25:
        inversion = rng.uniform(0.3, 0.7) * t1[rng.integers(3)]
        recovered = np.abs(1 - 2 * np.exp(-inversion / t1) + np.exp(-repetition / t1))
    signal = torch.from_numpy(density * recovered * np.exp(-echo / t2)).float()
    power = rng.uniform(1.5, 4.0)

    def contrast(parts: Tensor) -> Tensor:
        inside = parts.sum(0).clamp(0, 1)
        sharp = parts.clamp(min=0) ** power
        shares = sharp / sharp.sum(0).clamp(min=1e-6)
        return inside * (signal[:, None, None] * shares).sum(0)

    return contrast


def with_phase(image: Tensor, rng: np.random.Generator) -> Tensor:
    """(2, size, size): the phase that coil maps leave, smooth and mostly below half a radian."""
    strength = abs(rng.standard_normal()) * 0.2 + 0.02
    phase = strength * smooth_field(rng, image.shape[0], 1, knots=4)[..., 0]
    phase = phase + 0.1 * float(rng.standard_normal())
    return torch.stack([image * phase.cos(), image * phase.sin()])
