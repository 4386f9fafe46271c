"""Held-out images of the shipped priors: whole slices, nothing varied, in data units."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .bodies import AIR

SIZE = 192


def heads(folder: Path) -> list[Tensor]:
    """Every third slice of each head (2, 192, 192) about its centre, over its 99th percentile;
    the imaginary part is zero. Slices that are nearly empty are left out."""
    slices = []
    for image, _ in _stacks(folder):
        for plane in image[2::3]:
            scale = torch.quantile(plane, 0.99)
            if scale > 0.3 * torch.quantile(image, 0.99):
                real = centred(plane / scale, SIZE)
                slices.append(torch.stack([real, torch.zeros_like(real)]))
    return slices


def bodies(folder: Path) -> list[Tensor]:
    """Every fourth slice (1, 256, 256) in HU, pixels below 1 mm averaged two by two."""
    slices = []
    for image, pixel in _stacks(folder):
        for plane in image[1::4]:
            plane = plane.clamp(min=AIR)[None]
            slices.append(functional.avg_pool2d(plane[None], 2)[0] if pixel < 1.0 else plane)
    return slices


def photos(folder: Path) -> list[Tensor]:
    """Patches (3, 128, 128) in [0, 1] of scikit-image's pictures at half their resolution."""
    from skimage import data

    patches = []
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        picture = torch.from_numpy(getattr(data, name)().copy()).permute(2, 0, 1).float() / 255
        picture = functional.avg_pool2d(picture, 2)
        for row in range(0, picture.shape[1] - 127, 72):
            for column in range(0, picture.shape[2] - 127, 72):
                patches.append(picture[:, row : row + 128, column : column + 128])
    return patches


HELD_OUT: dict[str, Callable[[Path], list[Tensor]]] = {
    "brain-mri": heads,
    "body-ct": bodies,
    "photo-patches": photos,
}


def centred(plane: Tensor, size: int) -> Tensor:
    """The middle size x size pixels, zeros where the plane is smaller."""
    rows, columns = (size - n for n in plane.shape)
    padding = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
    return functional.pad(plane, padding)


def _stacks(folder: Path):
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as file:
            yield torch.from_numpy(file["image"].astype(np.float32)), float(file["voxel"][1])
