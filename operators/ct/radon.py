"""CT: line integrals of an image in parallel and fan beams, with the exact adjoint and FBP."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..linear import Forms, LinearOperator
from ..spectral import Transform
from .filtering import fbp
from .geometry import checked_geometry, read_angles
from .projector import Project, Projector

WATER = 0.0193  # 1 / mm at about 70 keV


class Radon(LinearOperator):
    """Line integrals: x (B, C, H, W) -> y (B, C, angles, detectors), by Joseph (1982).

    image_size: n or (H, W). angles: (A,) radians, any set (sparse, limited); equispaced ones in
    float32 are read without its rounding. detectors: their
    number, default as many as see the whole image. geometry: "parallel", "fan-flat" or
    "fan-arc" (conventions: operators.ct.geometry.Geometry, those of ASTRA). Lengths in mm:
    pixel_size, detector_spacing (default: one pixel at the axis), detector_offset (off-centre
    rotation: the detector's middle relative to the axis), source_distance and detector_distance
    from the axis (fan beams). y is in units of x times mm. rays_per_bin: a reading is the mean
    over as many rays, evenly spread over the element's width (time and memory grow as much).

    Weights up to memory_limit bytes are stored as sparse matrices, fewer by the symmetries of
    the scan; what exceeds it is recomputed at each product (`memory` tells).
    """

    def __init__(
        self,
        image_size: int | Sequence[int],
        angles: Tensor | Sequence[float],
        detectors: int | None = None,
        geometry: str = "parallel",
        pixel_size: float = 1.0,
        *,
        detector_spacing: float | None = None,
        detector_offset: float = 0.0,
        source_distance: float | None = None,
        detector_distance: float | None = None,
        channels: int = 1,
        rays_per_bin: int = 1,
        memory_limit: float = 400e6,
    ):
        if rays_per_bin < 1 or rays_per_bin != int(rays_per_bin):
            raise ValueError(f"rays_per_bin must be a whole number >= 1; got {rays_per_bin}")
        H, W = (image_size,) * 2 if isinstance(image_size, int) else tuple(image_size)
        self.angles = torch.from_numpy(read_angles(angles))
        self.geometry = checked_geometry(
            geometry,
            self.angles.numpy(),
            detectors,
            extent=(H * pixel_size, W * pixel_size),
            pixel_size=pixel_size,
            spacing=detector_spacing,
            offset=detector_offset,
            source_distance=source_distance,
            detector_distance=detector_distance,
        )
        shape = (channels, len(self.angles), self.geometry.detectors)
        super().__init__((channels, H, W), shape)
        self.rays_per_bin = int(rays_per_bin)
        self.pixel_size, self.memory_limit = float(pixel_size), float(memory_limit)
        self._projectors: dict[tuple[torch.dtype, torch.device], Projector] = {}

    def forward(self, x: Tensor) -> Tensor:
        y = Project.apply(x.flatten(2).flatten(0, 1), self.projector(x), False)
        if self.rays_per_bin > 1:
            y = y.unflatten(-1, (-1, self.rays_per_bin)).mean(-1)
        return self.pixel_size * y.reshape(x.shape[0], *self.out_shape)

    def adjoint(self, y: Tensor) -> Tensor:
        if self.rays_per_bin > 1:
            y = y.repeat_interleave(self.rays_per_bin, -1) / self.rays_per_bin
        x = Project.apply(y.flatten(2).flatten(0, 1), self.projector(y), True)
        return self.pixel_size * x.reshape(y.shape[0], *self.in_shape)

    def projector(self, like: Tensor) -> Projector:
        """The matrix for like's dtype and device, made at the first call for them."""
        key = (like.dtype, like.device)
        if key not in self._projectors:
            theta, s = self.geometry.split(self.rays_per_bin).rays()
            rays = (theta.ravel(), s.ravel() / self.pixel_size)
            size = self.in_shape[1:]
            self._projectors[key] = Projector(
                *rays, (size[0], size[1]), *key, memory_limit=self.memory_limit
            )
        return self._projectors[key]

    @property
    def device(self) -> torch.device:
        # The angles stay on the CPU; the matrix follows the input.
        return torch.device("cpu")

    def fbp(self, y: Tensor, filter: str = "ramp") -> Tensor:
        """Filtered backprojection -> (B, C, H, W), filter one of operators.ct.filtering.FILTERS."""
        self._check_out(y)
        size = (self.in_shape[1], self.in_shape[2])
        flat = y.flatten(0, 1)
        return fbp(flat, self.geometry, size, self.pixel_size, filter).reshape(
            y.shape[0], *self.in_shape
        )

    def full(self, views: int | None = None) -> tuple[Radon, np.ndarray]:
        """A scan of equispaced views among which are this one's, and where these are in it.

        Parallel beams over half a turn, fan beams over a whole one; views: default the fewest
        that are at least as many as the image's diagonal in pixels. Raises ValueError where the
        angles do not lie on such a grid.
        """
        period = np.pi if self.geometry.kind == "parallel" else 2 * np.pi
        angles = np.asarray(self.angles)
        diagonal = math.ceil(math.hypot(*self.in_shape[1:]))
        candidates = range(len(angles), 8 * diagonal) if views is None else [views]
        for count in candidates:
            place = np.mod(angles - angles[0], period) / period * count
            if np.abs(place - np.rint(place)).max() < 1e-6:
                break
        else:
            raise ValueError(
                "the angles do not lie on a grid of equispaced views; name another number of views"
            )
        if views is None and count < diagonal:
            count *= -(-diagonal // count)
        place = np.mod(angles - angles[0], period) / period * count
        grid = angles[0] + np.arange(count) * period / count
        return self._at(grid), np.rint(place).astype(np.int64) % count

    def _at(self, angles: np.ndarray) -> Radon:
        g = self.geometry
        fan = g.kind != "parallel"
        return Radon(
            self.in_shape[1:],
            torch.from_numpy(angles),
            g.detectors,
            g.kind,
            self.pixel_size,
            detector_spacing=g.spacing,
            detector_offset=g.offset,
            source_distance=g.source_distance if fan else None,
            detector_distance=g.detector_distance if fan else None,
            channels=self.in_shape[0],
            rays_per_bin=self.rays_per_bin,
            memory_limit=self.memory_limit,
        )

    @property
    def forms(self) -> Forms:
        return Forms.of(self, fbp=self.fbp, make_transform=self._transform)

    def _transform(self) -> Transform | None:
        """T: the full scan that this one is a part of, T_inv its FBP (so not exact).

        As Song et al. (2022) treat sparse-view CT: Lambda picks the measured views. None where
        these do not lie on equispaced ones.
        """
        try:
            whole, place = self.full()
        except ValueError:
            return None
        index = torch.from_numpy(place)
        mask = torch.zeros(1, 1, whole.out_shape[1], 1)
        mask[:, :, index] = 1.0

        def embed(y: Tensor) -> Tensor:
            z = y.new_zeros(y.shape[0], *whole.out_shape)
            return z.index_copy(2, index.to(y.device), y)

        return Transform(whole.forward, whole.fbp, mask, embed, exact=False, entrywise=True)

    def memory(self, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
        """Bytes stored on the CPU, share of the distinct rays stored, copies by symmetry.

        both: whether weights are stored by pixels too; if not, A^T scatters through the rays.
        """
        projector = self.projector(torch.empty(0, dtype=dtype))
        return {
            "bytes": projector.nbytes,
            "stored": projector.num_stored / projector.num_rows,
            "copies": projector.copies,
            "both": projector.both,
        }


def to_hounsfield(mu: Tensor, water: float = WATER) -> Tensor:
    """HU = 1000 (mu / mu_water - 1), mu in 1/mm."""
    return 1000 * (mu / water - 1)


def from_hounsfield(hu: Tensor, water: float = WATER) -> Tensor:
    """mu = mu_water (1 + HU / 1000) in 1/mm."""
    return water * (1 + hu / 1000)
