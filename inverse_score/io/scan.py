"""What every reader returns: one volume, read slice by slice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import BadInput

AXES = {
    "kspace": ("slice", "coil", "readout", "phase"),
    "sinogram": ("slice", "angle", "detector"),
    "image": ("slice", "row", "column"),
}
# Measurements of a user's own operator: slices first, and then whatever axes it gives.
OWN = "measurement"


@dataclass(frozen=True)
class Scan:
    """One volume of one file or DICOM series; `scan[k]` reads slice k and nothing else.

    kind and shape, always with the slices first:
        "kspace"    (slices, coils, H, W) complex64, centred, H the readout and W the phase
                    encoding (the undersampled axis, as in fastMRI); one coil is coils = 1
        "sinogram"  (slices, angles, detectors) float32
        "image"     (slices, H, W) float32 or complex64, rows and columns as displayed
        "measurement"  (slices, ...) float32 or complex64, of an operator of the user's own
    units: "HU", "line integral", or "" where the format has none (MRI).

    mask is what was measured, bool, (W,) or (H, W), None where the file does not say; unmeasured
    entries of k-space are zero. noise_std is the noise per real and imaginary part where it is
    known (after pre-whitening: 1), else None. crop (rows, columns) is the size of the scanner's
    own image, cut from the centre of the inverse FFT. angles are radians.

    affine (4, 4) float64 sends (column, row, slice, 1) of the image - for k-space of its centred
    inverse FFT - to millimetres in RAS+ (nibabel's convention; DICOM's LPS with the first two
    rows negated). None where the file has no geometry; it is never invented.

    references are images to score against, by the name they have in the file, each a function of
    the slice number. facts are what the header says of the acquisition, and notes what the reader
    did (readouts dropped and why): both without patient data, fit to print. files are the source
    files: one, or for a DICOM series one a slice in the order of the slices.

    Functions inside are picklable, so a scan can go to a worker process. Errors are BadInput.
    """

    kind: Literal["kspace", "sinogram", "image", "measurement"]
    shape: tuple[int, ...]
    read: Callable[[int], np.ndarray]
    files: tuple[Path, ...]
    format: str
    units: str = ""
    mask: np.ndarray | None = None
    noise_std: float | None = None
    crop: tuple[int, int] | None = None
    angles: np.ndarray | None = None
    geometry: Mapping[str, Any] = field(default_factory=dict)
    affine: np.ndarray | None = None
    references: Mapping[str, Callable[[int], np.ndarray]] = field(default_factory=dict)
    facts: Mapping[str, str | int | float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    nan: Literal["refuse", "zero"] = "refuse"

    def __post_init__(self):
        axes = self.shape if self.kind == OWN else AXES.get(self.kind)
        if axes is None or len(self.shape) != len(axes) or min(self.shape) < 1:
            raise BadInput(
                f"{self.name}: a scan is one of {AXES}, every axis at least 1; "
                f"got {self.kind!r} of shape {self.shape}"
            )

    @property
    def name(self) -> str:
        """Base name for messages: of the file, or of the folder of a series."""
        path = self.files[0]
        return path.name if len(self.files) == 1 else path.parent.name or path.name

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, k: int) -> np.ndarray:
        """Slice k, of shape self.shape[1:], complex64 or float32, finite."""
        if not 0 <= k < len(self):
            raise IndexError(f"{self.name} has slices 0 to {len(self) - 1}, got {k}")
        values = np.asarray(self.read(k))
        if values.shape != self.shape[1:]:
            raise BadInput(
                f"{self.name}, slice {k}: expected shape {self.shape[1:]}, read {values.shape}"
            )
        dtype = np.complex64 if np.iscomplexobj(values) else np.float32
        with np.errstate(over="ignore"):  # an overflow is infinite, and refused as such
            return self._finite(values.astype(dtype, copy=False), k)

    def _finite(self, values: np.ndarray, k: int) -> np.ndarray:
        bad = ~np.isfinite(values)
        if not bad.any():
            return values
        if self.nan == "zero":
            return np.where(bad, values.dtype.type(0), values)
        coils = np.flatnonzero(bad.any(axis=(1, 2))) if self.kind == "kspace" else ()
        where = f", coil {', '.join(map(str, coils[:8]))}" if len(coils) else ""
        raise BadInput(
            f"{self.name}, slice {k}{where}: {int(bad.sum())} values are NaN or infinite; "
            "ask for nan='zero' (--nan zero) to replace them by zero"
        )

    def select(self, slices: range) -> Scan:
        """The scan of these slices (step 1), the affine moved with them."""
        if slices.step != 1 or not 0 <= slices.start < slices.stop <= len(self):
            raise BadInput(f"{self.name} has slices 0 to {len(self) - 1}, got {slices}")
        affine = None if self.affine is None else self.affine @ shift(0, 0, slices.start)
        one_each = len(self.files) == len(self) > 1
        return replace(
            self,
            shape=(len(slices), *self.shape[1:]),
            read=_Offset(self.read, slices.start),
            references={n: _Offset(r, slices.start) for n, r in self.references.items()},
            affine=affine,
            files=self.files[slices.start : slices.stop] if one_each else self.files,
        )

    def sha256(self) -> str:
        """Hash of the bytes of all files: the scan's identity, whatever it is called."""
        digest = hashlib.sha256()
        for path in self.files:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()


@dataclass(frozen=True)
class _Offset:
    read: Callable[[int], np.ndarray]
    start: int

    def __call__(self, k: int) -> np.ndarray:
        return self.read(self.start + k)


@dataclass(frozen=True, eq=False)
class RootSumOfSquares:
    """sqrt(sum_c |F^-1 y_c|^2) of slice k, cut to size: the reference of complete k-space."""

    read: Callable[[int], np.ndarray]
    size: tuple[int, int]

    def __call__(self, k: int) -> np.ndarray:
        axes = (-2, -1)
        shifted = np.fft.ifft2(np.fft.ifftshift(self.read(k), axes=axes), norm="ortho")
        image = np.sqrt((np.abs(np.fft.fftshift(shifted, axes=axes)) ** 2).sum(axis=0))
        return center_crop(image, self.size).astype(np.float32)


def shift(column: float, row: float, slice_: float) -> np.ndarray:
    """Affine of an index offset: the affine of a cut-out is affine @ shift(its first voxel)."""
    matrix = np.eye(4)
    matrix[:3, 3] = column, row, slice_
    return matrix


def center_crop(image: Any, size: tuple[int, int]) -> Any:
    """The central (..., rows, columns), by fastMRI's rule: from (n - crop) // 2."""
    top, left = _crop_corner(image.shape[-2:], size)
    return image[..., top : top + size[0], left : left + size[1]]


def crop_affine(affine: np.ndarray, shape: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """The affine of `center_crop(image, size)`, given that of the image of this shape."""
    top, left = _crop_corner(shape, size)
    return affine @ shift(left, top, 0)


def _crop_corner(shape: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int]:
    if size[0] > shape[0] or size[1] > shape[1] or min(size) < 1:
        raise BadInput(f"a crop must fit into the image {tuple(shape)}, got {tuple(size)}")
    return (shape[0] - size[0]) // 2, (shape[1] - size[1]) // 2


def sampled(read: Callable[[int], np.ndarray], slices: int) -> np.ndarray | None:
    """What k-space (coils, H, W) measured, as it is zero elsewhere: (W,), (H, W), None for all.

    Seen in the middle slice, or where that cannot be read in the first or last. BadInput where
    nothing was measured.
    """
    occupied = (_readable(read, [slices // 2, 0, slices - 1]) != 0).any(axis=0)
    if not occupied.any():
        raise BadInput("every k-space value of the middle slice is zero")
    columns = occupied.any(axis=0)
    # A stray zero is a measured value; a pattern of points leaves out more than that.
    if occupied[:, columns].mean() > 0.99:
        return None if columns.all() else columns
    return occupied


def _readable(read: Callable[[int], np.ndarray], order: list[int]) -> np.ndarray:
    for k in order[:-1]:
        try:
            return read(k)
        except BadInput:
            continue
    return read(order[-1])
