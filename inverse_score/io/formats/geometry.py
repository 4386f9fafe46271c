"""Where slices lie: affines from positions and directions, and images turned as displayed."""

from __future__ import annotations

import numpy as np

from ...errors import BadInput

TOLERANCE = 0.05
"""Largest deviation of a slice from its place on the grid, as a share of the slice spacing."""
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def plane_affine(
    along: np.ndarray, down: np.ndarray, spacing: tuple[float, float], step, origin
) -> np.ndarray:
    """RAS+ affine of (column, row, slice) from LPS mm: unit directions of increasing column and
    row, spacing (between rows, between columns) as in DICOM's PixelSpacing, the step to the next
    slice and the centre of the first pixel."""
    affine = np.eye(4)
    affine[:3] = np.stack([along * spacing[1], down * spacing[0], step, origin], axis=1)
    return LPS_TO_RAS @ affine


def slice_step(what: str, positions: np.ndarray, normal, thickness: float) -> np.ndarray:
    """The vector from one slice to the next, equal for all slices up to TOLERANCE.

    positions (slices, 3) ordered along the normal. A tilted gantry shears the volume: the step
    need not be the normal.
    """
    if len(positions) == 1:
        return np.asarray(normal) * thickness
    gaps = np.diff(positions @ normal)
    typical = float(np.median(gaps))
    if gaps.min() <= max(1e-3, 0.01 * typical):
        where = int(np.argmin(gaps))
        raise BadInput(
            f"{what}: slices {where} and {where + 1} lie at the same place; several time points, "
            "echoes or copies are mixed"
        )
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    off = np.abs(positions - positions[0] - np.arange(len(positions))[:, None] * step).max(axis=1)
    if off.max() > TOLERANCE * typical:
        where = int(np.argmax(gaps))
        raise BadInput(
            f"{what}: the spacing is irregular, {gaps.min():.4g} to {gaps.max():.4g} mm; the "
            f"largest gap follows slice {where}: a slice may be missing"
        )
    return step


def unit_axes(orientation, what: str) -> tuple[float, ...]:
    """Six direction cosines as two orthonormal vectors; rounding is mended, more is refused."""
    first, second = np.reshape(np.asarray(orientation, dtype=np.float64), (2, 3))
    sizes = np.linalg.norm(first), np.linalg.norm(second)
    if not np.isfinite(sizes).all() or max(abs(sizes[0] - 1), abs(sizes[1] - 1)) > 1e-2:
        raise BadInput(f"{what}: directions must be unit vectors, got lengths {sizes}")
    first, second = first / sizes[0], second / sizes[1]
    if abs(first @ second) > 1e-2:
        raise BadInput(f"{what}: directions must be perpendicular, got {first @ second:.3g}")
    second = second - (first @ second) * first
    return (*first.tolist(), *(second / np.linalg.norm(second)).tolist())


def displayed_axes(affine: np.ndarray, slice_axis: int = 2) -> tuple[tuple[int, ...], list[bool]]:
    """How to turn an array (i, j, k) with this RAS+ affine into (slice, row, column) as displayed.

    Returns (axes, flips): the array's axes that become slice, row and column, and whether each is
    reversed. Columns run to the patient's left (sagittal: to the back), rows to the back (else to
    the feet), slices so that column, row and slice are a right-handed system in LPS.
    """
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    world = _nearest_axes(directions)
    column, row = sorted({0, 1, 2} - {slice_axis}, key=lambda axis: world[axis])
    flip_column = bool(directions[world[column], column] > 0)
    flip_row = bool(directions[world[row], row] > 0)
    turned = [
        directions[:, column] * (-1) ** flip_column,
        directions[:, row] * (-1) ** flip_row,
        directions[:, slice_axis],
    ]
    # The determinant is the same in LPS as in RAS: two axes change sign.
    flip_slice = bool(np.linalg.det(np.stack(turned, axis=1)) < 0)
    return (slice_axis, row, column), [flip_slice, flip_row, flip_column]


def displayed_affine(affine: np.ndarray, shape: tuple[int, int, int], axes, flips) -> np.ndarray:
    """The affine of (column, row, slice) after `displayed_axes`, of an array of this shape."""
    turned = np.zeros((4, 4))
    turned[3, 3] = 1
    for new, (axis, flip) in enumerate(zip(reversed(axes), reversed(flips), strict=True)):
        turned[axis, new] = -1 if flip else 1
        turned[axis, 3] = shape[axis] - 1 if flip else 0
    return affine @ turned


def _nearest_axes(directions: np.ndarray) -> list[int]:
    """For each array axis the world axis (R, A, S) nearest to it, each used once."""
    from itertools import permutations

    order = max(
        permutations(range(3)), key=lambda p: sum(abs(directions[p[i], i]) for i in range(3))
    )
    return list(order)
