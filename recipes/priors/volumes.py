"""Bytes of image files as arrays: NIfTI, NRRD, a DICOM series, IDX, pictures.

Volumes come as (slices, rows, columns) with voxel sizes (mm) in the same order; DICOM in the units
of its rescale (CT: Hounsfield units).
"""

from __future__ import annotations

import gzip
import io
import math
from collections.abc import Callable, Sequence

import numpy as np

from inverse_score.errors import BadInput

Volume = tuple[np.ndarray, tuple[float, float, float]]
_NIFTI_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4"}
_NRRD_TYPES = {"short": "i2", "signed short": "i2", "uchar": "u1", "ushort": "u2", "float": "f4"}


def read_nifti(content: bytes) -> Volume:
    """A single-file NIfTI-1, gzipped or not. 4-D files come as (slices, rows, columns, parts)."""
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    order = "<" if content[:4] == (348).to_bytes(4, "little") else ">"
    if content[344:347] != b"n+1" or len(content) < 352:
        raise BadInput("not a single-file NIfTI-1")
    dim = np.frombuffer(content, f"{order}i2", 8, 40).astype(int)
    code = int(np.frombuffer(content, f"{order}i2", 1, 70)[0])
    zooms = np.frombuffer(content, f"{order}f4", 8, 76).astype(float)
    offset, slope, intercept = np.frombuffer(content, f"{order}f4", 3, 108).astype(float)
    if code not in _NIFTI_TYPES:
        raise BadInput(f"NIfTI data type {code} is not read; known: {sorted(_NIFTI_TYPES)}")
    shape = tuple(dim[1 : dim[0] + 1])
    raw = np.frombuffer(content, order + _NIFTI_TYPES[code], math.prod(shape), int(offset))
    raw = raw.reshape(shape, order="F")
    if slope not in (0.0, 1.0) or intercept != 0.0:
        raw = (slope or 1.0) * raw + intercept
    parts = raw[..., None] if len(shape) == 3 else raw
    image = parts.transpose(2, 1, 0, *range(3, parts.ndim)).squeeze()
    return image, (zooms[3], zooms[2], zooms[1])


def read_nrrd(content: bytes) -> Volume:
    """A three-dimensional NRRD with attached data, raw or gzipped, and space directions."""
    head, _, data = content.partition(b"\n\n")
    lines = [line for line in head.decode("ascii", "replace").splitlines() if ": " in line]
    fields = dict(line.split(": ", 1) for line in lines if not line.startswith("#"))
    missing = {"type", "sizes", "encoding", "space directions"} - fields.keys()
    if not content.startswith(b"NRRD") or missing or fields["type"] not in _NRRD_TYPES:
        raise BadInput(f"not a NRRD file that is read here; missing {sorted(missing)}")
    if fields["encoding"] in ("gzip", "gz"):
        data = gzip.decompress(data)
    order = ">" if fields.get("endian") == "big" else "<"
    sizes = [int(size) for size in fields["sizes"].split()]
    vectors = [
        [float(value) for value in word.strip("()").split(",")]
        for word in fields["space directions"].split()
    ]
    x, y, z = (math.hypot(*vector) for vector in vectors)
    raw = np.frombuffer(data, order + _NRRD_TYPES[fields["type"]], math.prod(sizes))
    return raw.reshape(sizes[::-1]), (z, y, x)


def read_dicom_series(files: Sequence[bytes]) -> Volume:
    """Slices of one series, sorted along their common normal, rescaled."""
    import pydicom

    slices = [pydicom.dcmread(io.BytesIO(file)) for file in files]
    row, column = np.split(np.array(slices[0].ImageOrientationPatient, float), 2)
    normal = np.cross(row, column)
    slices.sort(key=lambda item: float(normal @ np.array(item.ImagePositionPatient, float)))
    places = [float(normal @ np.array(item.ImagePositionPatient, float)) for item in slices]
    gap = float(np.median(np.diff(places))) if len(places) > 1 else 1.0
    image = np.stack([_rescaled(item) for item in slices])
    rows, columns = (float(value) for value in slices[0].PixelSpacing)
    return image.astype(np.float32), (gap, rows, columns)


def _rescaled(item) -> np.ndarray:
    slope, intercept = item.get("RescaleSlope", 1), item.get("RescaleIntercept", 0)
    return item.pixel_array * float(slope) + float(intercept)


def read_idx(content: bytes) -> np.ndarray:
    """An IDX file of unsigned bytes (LeCun's MNIST layout)."""
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    if content[:3] != b"\x00\x00\x08":
        raise BadInput("not an IDX file of unsigned bytes")
    shape = np.frombuffer(content, ">u4", content[3], 4).astype(int)
    return np.frombuffer(content, np.uint8, math.prod(shape), 4 + 4 * content[3]).reshape(shape)


def read_picture(content: bytes) -> np.ndarray:
    """Red, green, blue bytes (H, W, 3)."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB"))


READERS: dict[str, Callable[[bytes], Volume]] = {"nifti": read_nifti, "nrrd": read_nrrd}
