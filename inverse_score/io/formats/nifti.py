"""NIfTI in and out (nibabel): volumes turned as radiologists see them, affines kept exact."""

from __future__ import annotations

import gzip
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ...errors import BadInput
from ..guard import check_size, check_slice
from ..names import printable
from ..scan import Scan
from .geometry import displayed_affine, displayed_axes

PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}


def read_nifti(
    path: str | Path, key: str | int | None = None, axes: str | None = None, nan: str = "refuse"
) -> Scan:
    """A NIfTI-1 or -2 volume (.nii, .nii.gz) as image slices, scl_slope and scl_inter applied.

    Slices are those along the file's third axis, or with axes "axial", "coronal" or "sagittal"
    those nearest to that plane; each is turned as displayed, and the affine with it. key chooses
    a volume of a series from 0. A file without sform and qform has no affine and is not turned.
    """
    path = Path(path)
    image = open_nifti(path)
    volumes = math.prod(image.shape[3:])
    if volumes > 1 and not (str(key).isdecimal() and int(str(key)) < volumes):
        raise BadInput(f"{path.name} holds {volumes} volumes: choose one of 0 to {volumes - 1} "
                       f"(--key), got {key!r}")  # fmt: skip
    shape = (image.shape[0], image.shape[1], image.shape[2])
    affine = _affine(image, path.name)
    notes: tuple[str, ...] = ()
    if affine is None:
        order, flips = (2, 1, 0), [False, False, False]
        notes = ("no orientation in the file: the image is shown as stored",)
    else:
        order, flips = displayed_axes(affine, _slice_axis(affine, axes))
        affine = displayed_affine(affine, shape, order, flips)
    return Scan(
        kind="image",
        shape=tuple(shape[axis] for axis in order),
        read=NiftiSlice(path, int(key or 0), order, tuple(flips)),
        files=(path,),
        format="nifti",
        affine=affine,
        notes=notes,
        nan=nan,  # type: ignore[arg-type]
    )


@dataclass(frozen=True)
class NiftiSlice:
    """Slice k of one volume, axes permuted and reversed."""

    path: Path
    volume: int
    axes: tuple[int, ...]
    flips: tuple[bool, ...]

    def __call__(self, k: int) -> np.ndarray:
        data = _volume(self.path, self.volume, self.path.stat().st_mtime_ns)
        turned = np.transpose(data, self.axes)
        turned = turned[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]
        return np.ascontiguousarray(turned[k])


def open_nifti(path: Path):
    """The nibabel image of a checked header; no voxel is read."""
    nibabel = _nibabel()
    with _reading(path.name):
        image = nibabel.Nifti1Image if _version(path) == 1 else nibabel.Nifti2Image
        found = image.from_filename(path)
        shape, dtype = found.shape, np.dtype(found.get_data_dtype())
        if len(shape) < 3 or min(shape) < 1 or dtype.kind not in "iufc":
            raise BadInput(f"{path.name} must be a volume of numbers, got {shape} of {dtype}")
        size, there = math.prod(shape) * dtype.itemsize, path.stat().st_size
        size += int(found.dataobj.offset)  # pyright: ignore[reportAttributeAccessIssue]
        check_size(path.name, size, there)
        check_slice(path.name, math.prod(shape[:3]) * max(8, dtype.itemsize))
        if path.suffix != ".gz" and size > there:
            raise BadInput(f"{path.name} is cut off: it needs {size} bytes, it has {there}")
    return found


def write_nifti(
    path: str | Path,
    volume: np.ndarray,
    affine: np.ndarray | None,
    *,
    description: str = "",
    sidecar: Mapping[str, object] | None = None,
) -> None:
    """volume (slices, H, W) real, with the affine of (column, row, slice), as float32 NIfTI-1.

    Without an affine the voxels get size 1 and both codes stay 0, "unknown", which the sidecar
    JSON beside the file says too: an orientation is never invented.
    """
    from ..runs.commits import commit_bytes, commit_json

    nibabel = _nibabel()
    volume = np.asarray(volume)
    if volume.ndim != 3 or np.iscomplexobj(volume) or not np.isfinite(volume).all():
        raise ValueError(f"a NIfTI volume must be finite, real, 3-D; got {volume.shape}, "
                         f"{volume.dtype}")  # fmt: skip
    array = np.ascontiguousarray(np.transpose(volume, (2, 1, 0)), dtype=np.float32)
    image = nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine)
    image.header.set_xyzt_units("mm" if affine is not None else "unknown")
    image.header["descrip"] = printable(description, 79).encode("ascii", "replace")
    image.set_sform(np.eye(4) if affine is None else affine, code=0 if affine is None else 1)
    image.set_qform(*_qform(affine))
    path = Path(path)
    content = image.to_bytes()
    # No time inside the gzip: equal volumes give equal bytes.
    commit_bytes(path, gzip.compress(content, 6, mtime=0) if path.suffix == ".gz" else content)
    facts = {"orientation": "unknown" if affine is None else "scanner", **(sidecar or {})}
    commit_json(path.with_name(f"{path.name.removesuffix('.gz').removesuffix('.nii')}.json"), facts)


def _qform(affine: np.ndarray | None) -> tuple[np.ndarray, int]:
    """A quaternion cannot hold the shear of a tilted gantry: then only the sform is set."""
    if affine is None:
        return np.eye(4), 0
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    sheared = np.abs(axes.T @ axes - np.eye(3)).max() > 1e-4
    return (np.eye(4), 0) if sheared else (affine, 1)


@lru_cache(maxsize=1)
def _volume(path: Path, volume: int, _stamp: int) -> np.ndarray:
    image = open_nifti(path)
    with _reading(path.name):
        if path.suffix == ".gz":
            image = type(image).from_bytes(_unpacked(path, image))
        index = np.unravel_index(volume, image.shape[3:]) if image.shape[3:] else ()
        values = np.asarray(image.dataobj[(..., *index)] if index else image.dataobj)
    dtype = np.complex64 if np.iscomplexobj(values) else np.float32
    return values.astype(dtype)


def _unpacked(path: Path, image) -> bytes:
    """All of a .nii.gz, so that its checksum is compared, and no more than its header says."""
    size = math.prod(image.shape) * image.get_data_dtype().itemsize + int(image.dataobj.offset)
    with gzip.open(path, "rb") as file:
        content = file.read(size)
        if file.read(1):
            raise BadInput(f"{path.name} holds more than the {size} bytes of its header")
    return content


def _affine(image, name: str) -> np.ndarray | None:
    header = image.header
    if int(header["sform_code"]) == 0 and int(header["qform_code"]) == 0:
        return None
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise BadInput(f"{name}: its affine is not invertible")
    return affine


def _slice_axis(affine: np.ndarray, plane: str | None) -> int:
    if plane is None:
        return 2
    if plane not in PLANES:
        raise BadInput(f"the plane of NIfTI slices must be one of {sorted(PLANES)}, got {plane!r}")
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return int(np.argmax(np.abs(directions[PLANES[plane]])))


def _version(path: Path) -> int:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        return 2 if file.read(8)[4:8] in {b"n+2\0", b"ni2\0"} else 1


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Any failure inside nibabel, whose errors share no base class, as BadInput; its log unsaid."""
    log = logging.getLogger("nibabel.global")
    was, log.disabled = log.disabled, True
    try:
        yield
    except (BadInput, MemoryError):
        raise
    except Exception as error:
        text = printable(error) or type(error).__name__
        raise BadInput(f"{name} is damaged or cut NIfTI ({text})") from None
    finally:
        log.disabled = was


def _nibabel():
    try:
        import nibabel
    except ImportError:
        raise BadInput("NIfTI needs nibabel: pip install nibabel") from None
    return nibabel
