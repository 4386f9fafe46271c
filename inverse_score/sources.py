"""Folders of files as lists of images, each read when it is asked for and not before.

An `Image` says which group (file or patient) it belongs to, so that splits never part a group,
and reads itself as (C, H, W) float32 in data units: pictures in [0, 1], CT in HU, magnitudes and
complex images divided by their volume's scale.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .errors import BadInput
from .io.scan import Scan

FORMATS = ("pictures", "npz", "fastmri", "dicom", "nifti")
# Data ranges (scale, offset): u = (data - offset) / scale.
RANGES = {"pictures": (0.5, 0.5), "HU": (1000.0, -500.0)}
PERCENTILE = 99.5
_SUFFIXES = {
    "pictures": {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp"},
    "npz": {".npz", ".npy"},
    "fastmri": {".h5", ".hdf5", ".mrd"},
    "nifti": {".nii", ".gz"},
    "dicom": {".dcm", ".ima", ""},
}
_MAX_FILES = 1_000_000
Slices = Callable[[int], np.ndarray]


@dataclass(frozen=True)
class Image:
    """One image of a folder; `unit` is "HU", "picture" or "" (divided by its volume's scale)."""

    group: str
    name: str
    unit: str
    read: Callable[[], np.ndarray]


@dataclass
class Found:
    """What a folder holds: its images in a fixed order, and the files that could not be read."""

    images: list[Image] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def add(self, read: Callable[[], list[Image]]) -> None:
        try:
            self.images += read()
        except BadInput as error:
            self.complaints.append(str(error))


def list_images(
    path: str | Path,
    format: str = "auto",
    *,
    key: str | None = None,
    channels: int | None = None,
    kspace_images: Callable[[Scan], Slices] | None = None,
) -> Found:
    """The images of a file or folder (searched in depth; links and hidden files are left out).

    key: the array of an npz. channels: 1 or 3, of pictures; the first picture's by default.
    kspace_images(scan) gives a function of the slice number, whose complex images are taken as
    they are; without it only single-coil k-space is read, by the inverse centred FFT, and divided
    by its volume's scale.
    """
    root = Path(path)
    files = find_files(root)
    format = _guess(files, root) if format == "auto" else format
    wanted = [file for file in files if _fits(file, format)]
    if not wanted:
        raise BadInput(f"{root.name} holds no {format} files; it has {len(files)} files of others")
    found = Found()
    if format == "pictures" and channels is None:
        channels = _first_channels(wanted)
    for file in wanted:
        name = str(file.relative_to(root)) if root.is_dir() else file.name
        if format == "pictures":
            found.images.append(Image(name, name, "picture", PictureFile(file, channels or 1)))
        elif format == "dicom":
            found.add(functools.partial(_dicom_images, file, name))
        elif format == "npz":
            found.add(functools.partial(_array_images, file, name, key))
        else:
            found.add(functools.partial(_scan_images, file, name, format, kspace_images))
    if not found.images:
        raise BadInput(f"no file of {root.name} can be read; the first: {found.complaints[0]}")
    return _with_scales(found) if format == "dicom" else found


def find_files(root: Path) -> list[Path]:
    """Regular files below root in sorted order, or root itself."""
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise BadInput(f"{root}: no such file or folder")
    files = []
    for file in sorted(root.rglob("*")):
        if file.is_file() and not file.is_symlink() and not file.name.startswith("."):
            files.append(file)
        if len(files) > _MAX_FILES:
            raise BadInput(f"{root.name} holds more than {_MAX_FILES} files")
    if not files:
        raise BadInput(f"{root.name} is empty: no file to train on")
    return files


def _fits(file: Path, format: str) -> bool:
    suffix = file.suffix.lower()
    # DICOM files often carry no suffix, or a UID whose last number looks like one.
    return suffix in _SUFFIXES[format] or (format == "dicom" and re.fullmatch(r"\.\d+", suffix))  # type: ignore[return-value]


def _guess(files: list[Path], root: Path) -> str:
    """The format that most files have by name."""
    counts = {format: sum(bool(_fits(file, format)) for file in files) for format in FORMATS}
    best = max(counts, key=lambda format: counts[format])
    if counts[best] == 0:
        raise BadInput(f"{root.name}: data.format must be given (one of {', '.join(FORMATS)})")
    return best


@dataclass(frozen=True)
class PictureFile:
    """A PNG, JPEG or TIFF as (channels, H, W) in [0, 1]; transparency is dropped."""

    path: Path
    channels: int

    def __call__(self) -> np.ndarray:
        pixels = read_picture(self.path)
        if pixels.ndim == 2:
            pixels = pixels[..., None]
        colours = pixels.shape[-1]
        if colours in (2, 4):
            pixels = pixels[..., :-1]
        if self.channels == 3 and pixels.shape[-1] == 1:
            pixels = np.repeat(pixels, 3, axis=-1)
        if self.channels == 1 and pixels.shape[-1] == 3:
            # Rec. 601 luma
            pixels = pixels @ np.array([[0.299], [0.587], [0.114]], dtype=np.float32)
        if pixels.shape[-1] != self.channels:
            raise BadInput(f"{self.path.name} has {colours} channels; expected {self.channels}")
        return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)


def read_picture(path: Path) -> np.ndarray:
    """(H, W) or (H, W, channels) float32: integers over their type's largest, floats as stored."""
    from skimage.io import imread

    try:
        pixels = np.asarray(imread(path))
    except Exception as error:
        # Each plugin has its own errors for a damaged file.
        raise BadInput(f"{path.name} is no readable picture ({type(error).__name__})") from None
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[-1] > 4):
        raise BadInput(f"{path.name} is not one picture: its shape is {pixels.shape}")
    if pixels.dtype.kind == "u":
        return pixels.astype(np.float32) / np.iinfo(pixels.dtype).max
    if pixels.dtype.kind != "f":
        raise BadInput(f"{path.name} holds {pixels.dtype}; unsigned integers and floats are read")
    return _finite(pixels.astype(np.float32), path.name)


def _first_channels(files: Sequence[Path]) -> int:
    for file in files:
        try:
            pixels = read_picture(file)
        except BadInput:
            continue
        return 3 if pixels.ndim == 3 and pixels.shape[-1] >= 3 else 1
    raise BadInput(f"none of {len(files)} pictures can be read; the first is {files[0].name}")


@dataclass(frozen=True)
class ArrayRow:
    """Row k of an array (N, *event) of a .npz or .npy; a complex row becomes two channels."""

    path: Path
    key: str | None
    row: int

    def __call__(self) -> np.ndarray:
        values = np.asarray(_array(self.path, self.key)[self.row])
        return _finite(_channels(values), f"{self.path.name}, row {self.row}")

    def label(self, key: str) -> int:
        """The integer at this row of another array of the file."""
        labels = _labels(self.path, key)
        if self.row >= len(labels):
            raise BadInput(f"{self.path.name}: {key!r} has {len(labels)} labels, fewer than rows")
        return int(labels[self.row])


@functools.lru_cache(maxsize=4)
def _array(path: Path, key: str | None) -> np.ndarray:
    from .io.formats.npy import npy_array, npz_array

    values = npy_array(path) if path.suffix == ".npy" else npz_array(path, key)
    if values.ndim < 2 or values.dtype.kind not in "iufc":
        raise BadInput(
            f"{path.name}: images are numbers (N, H, W), (N, C, H, W) or points (N, d); got "
            f"{values.dtype} {values.shape}"
        )
    return values


@functools.lru_cache(maxsize=4)
def _labels(path: Path, key: str) -> np.ndarray:
    from .io.formats.npy import npz_array

    labels = npz_array(path, key)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise BadInput(f"{path.name}: labels are integers >= 0, (N,); got {labels.dtype} "
                       f"{labels.shape}")  # fmt: skip
    return labels


def _array_images(path: Path, name: str, key: str | None) -> list[Image]:
    rows = len(_array(path, key))
    return [Image(name, f"{name}, row {k}", "", ArrayRow(path, key, k)) for k in range(rows)]


def _channels(values: np.ndarray) -> np.ndarray:
    """(H, W) or (C, H, W), real or complex, as (C, H, W) float32; points (d,) as they are."""
    if np.iscomplexobj(values):
        values = np.stack([np.real(values), np.imag(values)]) if values.ndim == 2 else values
        if np.iscomplexobj(values):
            raise BadInput(f"a complex image is (H, W); got {values.shape}")
    elif values.ndim == 2:
        values = values[None]
    return np.ascontiguousarray(values, dtype=np.float32)


class ScaledVolume:
    """Slices and the scale they share: a percentile of |values| over up to eight of them."""

    def __init__(self, slices: Slices, count: int, name: str):
        self.slices, self.count, self.name = slices, count, name

    @functools.cached_property
    def scale(self) -> float:
        numbers = np.unique(np.linspace(0, self.count - 1, min(8, self.count)).round().astype(int))
        values = np.concatenate([np.abs(self.slices(int(k))).ravel() for k in numbers])
        scale = float(np.percentile(values[values > 0], PERCENTILE)) if values.any() else 0.0
        if not scale > 0:
            raise BadInput(f"{self.name} is zero everywhere")
        return scale


@dataclass(frozen=True)
class VolumeSlice:
    """Slice k of a volume over its scale; as it is where `scaled` is false."""

    volume: ScaledVolume
    k: int
    scaled: bool = True

    def __call__(self) -> np.ndarray:
        image = _channels(self.volume.slices(self.k))
        image = image / np.float32(self.volume.scale) if self.scaled else image
        return _finite(image, f"{self.volume.name}, slice {self.k}")


def _scan_images(path: Path, name: str, format: str, kspace_images: Any) -> list[Image]:
    if format == "nifti":
        from .io.formats.nifti import read_nifti

        scan, group = read_nifti(path), name
        slices: Slices = scan.__getitem__
    else:
        from .io.reading import read_scan

        scan = read_scan(path, kind="kspace")
        slices = _kspace_slices(scan, kspace_images)
        group = _person_of(path) or name
    volume = ScaledVolume(slices, len(scan), name)
    scaled = format == "nifti" or kspace_images is None
    return [
        Image(group, f"{name}, slice {k}", "", VolumeSlice(volume, k, scaled))
        for k in range(len(scan))
    ]


def _person_of(path: Path) -> str | None:
    """A hash of the file's patient number, so that files of one person stay together."""
    from .io import guard

    with guard.open_hdf5(path) as file:
        person = guard.attribute(file, "patient_id") if "patient_id" in file.attrs else None
    return None if person is None else hashlib.sha256(str(person).encode()).hexdigest()[:12]


def _kspace_slices(scan: Scan, kspace_images: Any) -> Slices:
    if scan.mask is not None:
        raise BadInput(f"{scan.name} is undersampled; priors are trained on fully sampled scans")
    if kspace_images is not None:
        return kspace_images(scan)
    if scan.shape[1] > 1:
        raise BadInput(
            f"{scan.name} has {scan.shape[1]} coils; pass kspace_images=, which combines them "
            "(the command line does)"
        )
    return SingleCoil(scan)


@dataclass(frozen=True)
class SingleCoil:
    """The inverse centred orthonormal FFT of slice k, cut to the scanner's own image size."""

    scan: Scan

    def __call__(self, k: int) -> np.ndarray:
        from .io.scan import center_crop

        axes = (-2, -1)
        kspace = np.fft.ifftshift(self.scan[k][0], axes)
        image = np.fft.fftshift(np.fft.ifft2(kspace, norm="ortho"), axes)
        crop = self.scan.crop
        return image if crop is None else center_crop(image, crop)


@dataclass(frozen=True)
class DicomFrames:
    """Slice k is frame k of one series."""

    frames: tuple[Any, ...]

    def __call__(self, k: int) -> np.ndarray:
        from .io.formats.dicom_pixels import read_frame

        return read_frame(self.frames[k])


def _dicom_images(path: Path, name: str) -> list[Image]:
    from .io.formats.dicom_frames import frames_of
    from .io.formats.dicom_header import read_header

    frames = [frame for frame in frames_of(path) if not frame.derived]
    if not frames:
        return []
    header = read_header(path, ["PatientID", "StudyInstanceUID"]).dataset
    person = str(header.get("PatientID") or header.get("StudyInstanceUID") or frames[0].series)
    # A hash keeps files of one person together without the person's number being kept.
    group = hashlib.sha256(person.encode()).hexdigest()[:12]
    return [
        Image(group, f"{name}, frame {frame.index}", frame.units, frame)  # type: ignore[arg-type]
        for frame in frames
    ]


def _with_scales(found: Found) -> Found:
    """DICOM frames as slices of their series: CT in HU, others over their series' scale."""
    series: dict[tuple, list[int]] = {}
    for number, image in enumerate(found.images):
        series.setdefault(image.read.group, []).append(number)  # type: ignore[attr-defined]
    images: dict[int, Image] = {}
    for numbers in series.values():
        frames = tuple(found.images[number].read for number in numbers)
        volume = ScaledVolume(DicomFrames(frames), len(frames), found.images[numbers[0]].name)
        for k, number in enumerate(numbers):
            old = found.images[number]
            read = VolumeSlice(volume, k, scaled=old.unit != "HU")
            images[number] = Image(old.group, old.name, old.unit, read)
    return Found([images[number] for number in sorted(images)], found.complaints)


def _finite(values: np.ndarray, name: str) -> np.ndarray:
    bad = np.count_nonzero(~np.isfinite(values))
    if bad:
        raise BadInput(f"{name}: {bad} values are NaN or infinite")
    return values
