"""Scanner geometries of CT: the line {X cos theta + Y sin theta = s} that each detector sees.

X runs to the right and Y upwards from the centre of rotation; angles are counter-clockwise. The
conventions are those of the ASTRA toolbox.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

GEOMETRIES = ("parallel", "fan-flat", "fan-arc")


@dataclass(frozen=True)
class Geometry:
    """Where source and detectors are; lengths in mm, angles (A,) in radians.

    parallel: view beta sees theta = beta, s = u. Fan beams: the source stands at
    source_distance (sin beta, -cos beta), the detector's centre opposite at detector_distance
    from the rotation axis; its elements lie at u along (cos beta, sin beta) on a straight line
    ("fan-flat", gamma = atan(u / (source + detector distance))) or on an arc around the source
    ("fan-arc", gamma = u / (source + detector distance)): theta = beta - gamma, s = source
    distance * sin gamma. Element i of n: u = (i - (n - 1) / 2) * spacing + offset.
    """

    kind: str
    angles: np.ndarray
    detectors: int
    spacing: float
    offset: float = 0.0
    source_distance: float = math.inf
    detector_distance: float = 0.0

    @property
    def positions(self) -> np.ndarray:
        """u of each element (D,), mm."""
        return (np.arange(self.detectors) - (self.detectors - 1) / 2) * self.spacing + self.offset

    @property
    def fan_angles(self) -> np.ndarray:
        """gamma of each element (D,); zero for a parallel beam."""
        if self.kind == "parallel":
            return np.zeros(self.detectors)
        ratio = self.positions / (self.source_distance + self.detector_distance)
        return np.arctan(ratio) if self.kind == "fan-flat" else ratio

    def split(self, parts: int) -> Geometry:
        """The same detector with each element cut into `parts`."""
        return replace(self, detectors=parts * self.detectors, spacing=self.spacing / parts)

    def rays(self) -> tuple[np.ndarray, np.ndarray]:
        """theta and s (mm), both (A, D)."""
        if self.kind == "parallel":
            theta, s = np.meshgrid(self.angles, self.positions, indexing="ij")
            return theta, s
        gamma = self.fan_angles
        s = np.broadcast_to(self.source_distance * np.sin(gamma), (len(self.angles), len(gamma)))
        return self.angles[:, None] - gamma[None], s


def checked_geometry(
    kind: str,
    angles: np.ndarray,
    detectors: int | None,
    *,
    extent: tuple[float, float],
    pixel_size: float,
    spacing: float | None,
    offset: float,
    source_distance: float | None,
    detector_distance: float | None,
) -> Geometry:
    """A Geometry with defaults that see the whole image of `extent` (height, width) mm."""
    if kind not in GEOMETRIES:
        raise ValueError(f"geometry must be one of {', '.join(GEOMETRIES)}; got {kind!r}")
    if angles.ndim != 1 or not len(angles) or not np.isfinite(angles).all():
        raise ValueError(f"angles must be (A,) finite radians; got {angles.shape} {angles}")
    if not (math.isfinite(offset) and math.isfinite(pixel_size) and pixel_size > 0):
        raise ValueError(
            f"pixel_size must be positive, offset finite; got {pixel_size} and {offset} mm"
        )
    if spacing is not None and not (math.isfinite(spacing) and spacing > 0):
        raise ValueError(f"detector_spacing must be a positive length in mm; got {spacing}")
    if detectors is not None and detectors < 1:
        raise ValueError(f"detectors must be at least 1; got {detectors}")
    radius = math.hypot(*extent) / 2
    if kind == "parallel":
        if source_distance is not None or detector_distance is not None:
            raise ValueError("a parallel beam has no source_distance and no detector_distance")
        spacing = pixel_size if spacing is None else spacing
        if detectors is None:
            detectors = math.ceil(2 * radius / spacing)
            if spacing == pixel_size:
                # As odd or even as the image is wide: at 0 and 90 degrees a bin then covers one
                # column or row. Straddling two, its ray at the border would see half a pixel.
                detectors += (detectors - round(extent[1] / pixel_size)) % 2
        return Geometry(kind, angles, int(detectors), spacing, offset)
    if source_distance is None or not source_distance > radius:
        raise ValueError(
            f"a fan beam needs source_distance (mm) beyond the image's corner at {radius:g} mm; "
            f"got {source_distance}"
        )
    back = source_distance if detector_distance is None else detector_distance
    if not (math.isfinite(back) and back >= 0):
        raise ValueError(f"detector_distance must be a length >= 0 in mm; got {back}")
    reach, far = math.asin(radius / source_distance), source_distance + back
    spacing = pixel_size * far / source_distance if spacing is None else spacing
    half = far * (math.tan(reach) if kind == "fan-flat" else reach)
    detectors = math.ceil(2 * half / spacing) if detectors is None else detectors
    return Geometry(kind, angles, int(detectors), spacing, offset, source_distance, back)


def read_angles(angles: Tensor | Sequence[float]) -> np.ndarray:
    """Angles (A,) in float64; float32 ones that are equispaced lose their rounding.

    Otherwise an eighth of a scan would differ from its mirror images by 1e-7 rad, and the
    symmetries that make it cheap would be hidden.
    """
    if not isinstance(angles, Tensor | np.ndarray):
        return np.asarray(angles, dtype=np.float64)
    array = angles.detach().cpu().numpy() if isinstance(angles, Tensor) else angles
    exact = array.astype(np.float64)
    if array.dtype != np.float32 or array.ndim != 1 or len(array) < 2:
        return exact
    step = (exact[-1] - exact[0]) / (len(exact) - 1)
    views = 2 * math.pi / step if step else math.inf
    if not math.isfinite(views) or abs(views - round(views)) > 1e-4 * max(1.0, abs(views) / 100):
        return exact
    step = 2 * math.pi / round(views)
    first = round(2 * exact[0] / step) / 2 * step
    grid = first + step * np.arange(len(exact))
    rounding = 4 * np.finfo(np.float32).eps * max(1.0, np.abs(exact).max())
    return grid if np.abs(grid - exact).max() <= rounding else exact
