"""A user's copy of a public data set as the files that the benchmark definitions read.

Every function takes the folder of the data set as it is distributed and writes OUT/train,
OUT/validation and OUT/test (or OUT alone where the data set has its own split), one npz a volume,
named by a hash and not by a patient. Finished volumes are kept when it is run again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from inverse_score.errors import BadInput
from inverse_score.io.formats.dicom import read_series
from inverse_score.io.formats.fastmri import open_fastmri
from inverse_score.io.formats.nifti import read_nifti
from inverse_score.io.runs.commits import committing
from inverse_score.io.scan import Scan, center_crop
from operators import fft2c, ifft2c

from .. import calibration

Report = Callable[[str], None]
T = TypeVar("T")
CONTRASTS = ("t1", "t1ce", "t2", "flair")


def lidc(data: Path, out: Path, report: Report = print) -> None:
    """LIDC-IDRI: volumes resampled to 160 x 320 x 320, min-max to [0, 1], uint8, axial slices."""
    _ct(data, out, (160, 320, 320), report)


def ldct_512(data: Path, out: Path, report: Report = print) -> None:
    """LDCT-and-Projection-data, full-dose images: slices of 512 x 512, min-max by volume, uint8."""
    _ct(data, out, (None, 512, 512), report)


def ldct_256(data: Path, out: Path, report: Report = print) -> None:
    """The same at 256 x 256, as DiffusionMBIR and DDS use AAPM's data."""
    _ct(data, out, (None, 256, 256), report)


def _ct(data: Path, out: Path, size: tuple[int | None, int, int], report: Report) -> None:
    folders = sorted({path.parent for path in _folder(data).rglob("*.dcm")})
    if not folders:
        raise BadInput(f"{data.name} holds no .dcm file below it")
    volumes = [scan for folder in folders for scan in read_series(folder) if scan.units == "HU"]
    for part, scan in _split(volumes, [_identity(scan) for scan in volumes]):
        with _Target(out / part, _identity(scan), report) as path:
            if path is not None:
                volume = _resized(np.stack([scan[k] for k in range(len(scan))]), size)
                _save(path, images=_bytes(_unit(volume)))


def brats(data: Path, out: Path, report: Report = print) -> None:
    """BraTS 2021: each contrast clipped to mean +- 6 std inside its bounding box, [0, 1], uint8.

    Slices z from z_min + 40 to z_max - 25 of the bounding box, subjects split, never slices.
    """
    subjects = sorted(p for p in _folder(data).iterdir() if p.is_dir())
    names = [hashlib.sha256(p.name.encode()).hexdigest()[:12] for p in subjects]
    for part, (folder, name) in _split(list(zip(subjects, names, strict=True)), names):
        for contrast in CONTRASTS:
            with _Target(out / part, f"{name}-{contrast}", report) as path:
                if path is not None:
                    volume = _one_nifti(folder, contrast)
                    _save(path, images=_bytes(brats_slices(volume)))


def brats_slices(volume: np.ndarray) -> np.ndarray:
    """The slices of one contrast (Z, H, W) that Song et al. 2022 use, in [0, 1]."""
    if not volume.any():
        raise BadInput("a BraTS volume is zero everywhere")
    box = tuple(slice(int(i.min()), int(i.max()) + 1) for i in np.nonzero(volume))
    inside = volume[box]
    mean, std = float(inside.mean()), float(inside.std())
    clipped = volume.clip(mean - 6 * std, mean + 6 * std)
    first, last = box[0].start + 40, box[0].stop - 25
    if last <= first:
        raise BadInput(f"a BraTS volume of {box[0].stop - box[0].start} slices is too short: no "
                       "slice lies between 40 above its first and 25 below its last")  # fmt: skip
    return _unit(clipped)[first:last]


def fastmri_magnitude(data: Path, out: Path, report: Report = print, size: int = 320) -> None:
    """fastMRI single-coil: |inverse FFT| cropped to 320 x 320, each slice by its own maximum."""
    for scan, name in _scans(data):
        if scan.shape[1] != 1:
            raise BadInput(f"{scan.name} has {scan.shape[1]} coils; this takes single-coil files")
        with _Target(out, name, report) as path:
            if path is not None:
                coils = [ifft2c(torch.from_numpy(scan[k]))[0].abs() for k in range(len(scan))]
                images = np.stack([_cropped(image.numpy(), size) for image in coils])
                peak = images.max(axis=(1, 2), keepdims=True)
                _save(path, images=(images / np.maximum(peak, 1e-30)).astype(np.float32))


def fastmri_complex_320(data: Path, out: Path, report: Report = print) -> None:
    """fastMRI multi-coil: complex combination and maps of the full k-space at 320 x 320."""
    _complex(data, out, 320, report)


def fastmri_complex_384(data: Path, out: Path, report: Report = print) -> None:
    """The same at 384 x 384, as Jalal et al. 2021 use the brain."""
    _complex(data, out, 384, report)


def _complex(data: Path, out: Path, size: int, report: Report) -> None:
    for scan, name in _scans(data):
        with _Target(out, name, report) as path:
            if path is not None:
                pairs = [mvue(torch.from_numpy(scan[k]), size) for k in range(len(scan))]
                images = np.stack([image for image, _ in pairs])
                _save(path, images=images, maps=np.stack([maps for _, maps in pairs]))


def mvue(kspace: torch.Tensor, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(image (size, size), maps (coils, size, size)): sum conj(S) x / sqrt(sum |S|^2) by q99.

    The minimum-variance unbiased estimate with ESPIRiT maps of the full k-space (Jalal et al.
    2021), divided by the 99th percentile of its magnitude. A side shorter than size is padded.
    """
    coils = _fit(ifft2c(kspace), size)
    region = min(24, size)
    maps = calibration.espirit_maps(fft2c(coils)[None], (region, region))[0]
    power = maps.abs().square().sum(0)
    image = (maps.conj() * coils).sum(0) / power.clamp(min=1e-12).sqrt()
    image[power == 0] = 0
    scale = torch.quantile(image.abs().flatten(), 0.99)
    return (image / scale).numpy().astype(np.complex64), maps.numpy().astype(np.complex64)


PREPARATIONS: dict[str, Callable[..., None]] = {
    "lidc": lidc,
    "ldct-512": ldct_512,
    "ldct-256": ldct_256,
    "brats": brats,
    "fastmri-magnitude": fastmri_magnitude,
    "fastmri-complex-320": fastmri_complex_320,
    "fastmri-complex-384": fastmri_complex_384,
}


def _folder(data: Path) -> Path:
    if not data.is_dir():
        raise BadInput(f"--data must be the data set's folder; {data} is not one")
    return data


def _scans(data: Path) -> Iterator[tuple[Scan, str]]:
    paths = sorted(_folder(data).glob("*.h5"))
    if not paths:
        raise BadInput(f"{data.name} holds no .h5 file")
    for path in paths:
        yield open_fastmri(path), path.stem


def _identity(scan: Scan) -> str:
    """A name for a series that tells nothing of the patient: a hash of its first slice."""
    return hashlib.sha256(np.ascontiguousarray(scan[0]).tobytes()).hexdigest()[:12]


def _split(volumes: Sequence[T], names: Sequence[str]) -> Iterator[tuple[str, T]]:
    """80 % train, 10 % validation, the rest test, in the order of the names."""
    order = sorted(range(len(volumes)), key=lambda i: names[i])
    for place, i in enumerate(order):
        share = place / len(order)
        yield ("train" if share < 0.8 else "validation" if share < 0.9 else "test"), volumes[i]


class _Target:
    """The npz to write, or None where it is there already; reports what was written."""

    def __init__(self, folder: Path, name: str, report: Report):
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.report = folder / f"{name}.npz", report

    def __enter__(self) -> Path | None:
        return None if self.path.exists() else self.path

    def __exit__(self, kind, *_) -> None:
        if kind is None:
            self.report(f"{self.path.parent.name}/{self.path.name}")


def _save(path: Path, **arrays: np.ndarray) -> None:
    with committing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]


def _one_nifti(folder: Path, contrast: str) -> np.ndarray:
    found = sorted(folder.glob(f"*_{contrast}.nii*"))
    if len(found) != 1:
        raise BadInput(f"{folder.name} must hold one *_{contrast}.nii.gz; it holds {len(found)}")
    scan = read_nifti(found[0])
    return np.stack([scan[k] for k in range(len(scan))])


def _unit(volume: np.ndarray) -> np.ndarray:
    low, high = float(volume.min()), float(volume.max())
    if high <= low:
        raise BadInput("a volume has one value everywhere")
    return (volume - low) / (high - low)


def _bytes(volume: np.ndarray) -> np.ndarray:
    return np.round(volume * 255).astype(np.uint8)


def _resized(volume: np.ndarray, size: tuple[int | None, int, int]) -> np.ndarray:
    from skimage.transform import resize

    shape = tuple(have if want is None else want for have, want in zip(volume.shape, size))  # noqa: B905
    if shape == volume.shape:
        return volume
    return np.asarray(resize(volume, shape, order=1, preserve_range=True, anti_aliasing=True))


def _cropped(image: np.ndarray, size: int) -> np.ndarray:
    if min(image.shape) < size:
        raise BadInput(f"an image of {image.shape} is smaller than the {size} x {size} wanted")
    return center_crop(image, (size, size))


def _fit(coils: torch.Tensor, size: int) -> torch.Tensor:
    """Coil images cropped or zero-padded about their centre to size x size."""
    for axis in (-2, -1):
        have = coils.shape[axis]
        if have >= size:
            coils = coils.narrow(axis, (have - size) // 2, size)
        else:
            before = size // 2 - have // 2
            pad = [0, 0, 0, 0]
            pad[0 if axis == -1 else 2] = before
            pad[1 if axis == -1 else 3] = size - have - before
            coils = torch.nn.functional.pad(coils, pad)
    return coils
