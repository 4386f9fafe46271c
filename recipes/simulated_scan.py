"""Images as the scans that would have made them: k-space or counts, simulated a slice at a time.

For people who have DICOM series or pictures and no raw data. The result says that it is
simulated: it lacks all that goes wrong in a scanner, and images that were filtered, interpolated
or compressed make reconstruction look easier than it is (Shimron et al. 2022).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from inverse_score.errors import BadInput
from inverse_score.io.scan import Scan
from operators import add_gaussian
from operators.ct import WATER, Radon

from .pictures import read_picture
from .simulate import simulate_ct, simulate_mri

COILS, NOISE = 8, 0.01
VIEWS, PHOTONS = 180, 1e5


def simulated_scan(image: Scan, operator: str, *, seed: int = 0) -> Scan:
    """The complete scan, of operator "mri" or "ct", of a volume of images.

    mri: magnitudes, 8 coils, noise std 0.01 of the volume's largest magnitude, the image's
    largest magnitude 1. ct: HU with square pixels of known size, 180 parallel views over 180
    degrees, Poisson counts of 100,000 photons a ray. The noise-free image is the reference.
    """
    if image.kind != "image":
        raise BadInput(f"{image.name} holds {image.kind} data: only images are simulated from")
    return (_simulated_kspace if operator == "mri" else _simulated_counts)(image, seed)


def picture_scan(path: Path) -> Scan:
    """A picture file as one slice of magnitudes in [0, 1]: its luma."""
    shape = (1, *read_picture(path, 1).shape[1:])
    return Scan("image", shape, PictureSlice(path), (path,), "picture")


@dataclass(frozen=True)
class PictureSlice:
    """Reads the only slice of a picture."""

    path: Path

    def __call__(self, k: int) -> np.ndarray:
        return read_picture(self.path, 1)[k].numpy()


def _simulated_kspace(image: Scan, seed: int) -> Scan:
    slices = KspaceOf(image, seed)
    return Scan(
        "kspace",
        (len(image), COILS, *image.shape[1:]),
        slices,
        image.files,
        f"{image.format}, k-space simulated",
        affine=image.affine,
        references={"ground_truth": slices.truth},
        facts={"simulated": f"simulated from images: {COILS} coils, noise {NOISE:g}, seed {seed}"},
        notes=(*image.notes, "k-space simulated here from the images: no scanner measured it"),
    )


@dataclass
class KspaceOf:
    """Complete k-space (coils, H, W) of slice k of an image volume; the last slice is kept."""

    image: Scan
    seed: int
    _last: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def __call__(self, k: int) -> np.ndarray:
        return self._simulated(k)[0]

    def truth(self, k: int) -> np.ndarray:
        """The noise-free magnitude (H, W) at the scan's resolution."""
        return self._simulated(k)[1]

    @cached_property
    def top(self) -> float:
        """The volume's largest magnitude, read slice by slice."""
        ends = [
            (float(s.min()), float(s.max())) for s in map(self._magnitude, range(len(self.image)))
        ]
        if min(low for low, _ in ends) < 0:
            raise BadInput(f"{self.image.name}: MRI images are magnitudes, and some are below 0")
        return max(high for _, high in ends) or 1.0

    def _magnitude(self, k: int) -> np.ndarray:
        values = self.image[k]
        return np.abs(values) if np.iscomplexobj(values) else values

    def _simulated(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        if k not in self._last:
            image = torch.from_numpy(self._magnitude(k) / np.float32(self.top))
            scan = simulate_mri(image, coils=COILS, noise_level=0.0, seed=self.seed, items=[k])
            noisy = add_gaussian(scan.clean, NOISE, seed=self.seed, items=[k])
            self._last.clear()
            self._last[k] = (noisy[0].numpy(), scan.ground_truth[0].numpy())
        return self._last[k]


def _simulated_counts(image: Scan, seed: int) -> Scan:
    pixel = _pixel(image)
    if image.units != "HU" and float(image[len(image) // 2].min()) >= 0:
        raise BadInput(
            f"{image.name} is no CT: Hounsfield units have air at -1000, and its values are >= 0"
        )
    slices = CountsOf(image, seed, pixel)
    geometry = {
        "type": "parallel",
        "detector_spacing_mm": pixel,
        "pixel_mm": pixel,
        "image_shape": image.shape[1:],
        "value": "counts",
        "I0": PHOTONS,
        "mu_water_per_mm": WATER,
    }
    return Scan(
        "sinogram",
        (len(image), VIEWS, slices.detectors),
        slices,
        image.files,
        f"{image.format}, projections simulated",
        units="counts",
        angles=slices.angles.numpy(),
        geometry=geometry,
        affine=image.affine,
        references={"ground_truth": slices.truth},
        facts={
            "simulated": f"simulated from images: {VIEWS} views, {PHOTONS:g} photons, seed {seed}"
        },
        notes=(
            *image.notes,
            "projections simulated here from the images: no scanner measured them",
        ),
    )


@dataclass(frozen=True)
class CountsOf:
    """Photon counts (angles, detectors) of slice k of a volume in HU; pixel in mm."""

    image: Scan
    seed: int
    pixel: float

    @property
    def angles(self) -> torch.Tensor:
        return torch.arange(VIEWS, dtype=torch.float64) * math.pi / VIEWS

    @property
    def detectors(self) -> int:
        return Radon(self.image.shape[1:], self.angles, pixel_size=self.pixel).out_shape[-1]

    def __call__(self, k: int) -> np.ndarray:
        image = torch.from_numpy(self.image[k]).clamp(min=-1000.0)
        scan = simulate_ct(
            image, self.angles, pixel_size=self.pixel, unit="hu", I0=PHOTONS, seed=self.seed,
            items=[k],
        )  # fmt: skip
        return np.rint(PHOTONS * np.exp(-scan.sinogram[0].numpy()))

    def truth(self, k: int) -> np.ndarray:
        """The image itself, in HU; nothing is thinner than air."""
        return np.maximum(self.image[k], -1000.0)


def _pixel(image: Scan) -> float:
    """Side of a square pixel in mm; BadInput where the file does not say, or it is no square."""
    if image.affine is None:
        raise BadInput(
            f"{image.name} does not say how large a pixel is, which projections need: use "
            "`inverse-score simulate --operator ct --pixel MM`"
        )
    column, row = (float(np.linalg.norm(image.affine[:3, axis])) for axis in (0, 1))
    if abs(column / row - 1) > 0.01:
        raise BadInput(f"{image.name}: pixels must be square for CT; got {column:g} x {row:g} mm")
    return column
