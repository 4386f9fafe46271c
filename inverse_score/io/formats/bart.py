"""BART's .cfl/.hdr pairs and .ra files, in and out: complex, column-major, sixteen dimensions."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ...errors import BadInput
from ..guard import LIMITS, check_slice, reading
from ..guard.sniff import RA_MAGIC, first_bytes
from ..scan import Scan, sampled

DIMENSIONS = (
    "READ", "PHS1", "PHS2", "COIL", "MAPS", "TE", "COEFF", "COEFF2", "ITER", "CSHIFT", "TIME",
    "TIME2", "LEVEL", "SLICE", "AVG", "BATCH",
)  # fmt: skip
READ, PHS1, PHS2, COIL, SLICE = 0, 1, 2, 3, 13
_MAX_HEADER = 1 << 20


def read_bart(path: str | Path, kind: str | None = None, nan: str = "refuse") -> Scan:
    """A cfl pair (by .cfl, .hdr or stem) or .ra file as k-space, or for kind "image" as image.

    The plane is READ x PHS1, or PHS1 x PHS2 where READ is 1 (a slice of a 3-D scan, already
    transformed along the readout), with SLICE as slices. 3-D k-space is transformed along READ,
    which is never undersampled, and its slices are the READ positions. BART's centred unitary FFT
    (fft -u) is this package's.
    """
    path = Path(path)
    data, files = open_bart(path)
    plane = _plane(data.shape, path.name)
    hybrid = plane == (PHS1, PHS2) and data.shape[READ] > 1
    kind = "kspace" if kind is None else kind
    if kind not in ("kspace", "image"):
        raise BadInput(f"{path.name}: BART files hold k-space or images, not {kind!r}")
    if hybrid:
        check_slice(f"{path.name} (3-D k-space, transformed at once)", data.nbytes)
    slices = data.shape[READ] if hybrid else data.shape[SLICE]
    size, coils = tuple(data.shape[axis] for axis in plane), data.shape[COIL]
    if kind == "image" and coils > 1:
        raise BadInput(f"{path.name} has {coils} coils: k-space or coil images, not an image")
    read = BartSlice(path, plane, hybrid and kind == "kspace", kind)
    shape = (slices, coils, *size) if kind == "kspace" else (slices, *size)
    mask = sampled(read, slices) if kind == "kspace" else None
    return Scan(kind, shape, read, files, "bart", mask=mask, nan=nan)  # type: ignore[arg-type]


@dataclass(frozen=True)
class BartSlice:
    """Reads slice k as (coils, H, W), or (H, W) of an image, from the memory-mapped file."""

    path: Path
    plane: tuple[int, int]
    hybrid: bool
    kind: str

    def __call__(self, k: int) -> np.ndarray:
        if self.hybrid:
            return _along_readout(self.path, _stamp(self.path))[k]
        data, _ = open_bart(self.path)
        with reading(f"{self.path.name}, slice {k}"):
            where = READ if self.plane == (PHS1, PHS2) and data.shape[READ] > 1 else SLICE
            index: list[int | slice] = [0] * data.ndim
            index[where] = k
            for axis in (COIL, *self.plane):
                index[axis] = slice(None)
            values = np.moveaxis(data[tuple(index)], -1, 0)
        return np.ascontiguousarray(values if self.kind == "kspace" else values[0])


def open_bart(path: Path) -> tuple[np.ndarray, tuple[Path, ...]]:
    """(the array with all 16 dimensions, memory-mapped and read-only; the files it is in)."""
    if path.exists() and first_bytes(path, 8) == RA_MAGIC:
        return _open_ra(path), (path,)
    stem = path.with_suffix("") if path.suffix in {".cfl", ".hdr"} else path
    header, values = (stem.with_name(f"{stem.name}{suffix}") for suffix in (".hdr", ".cfl"))
    for part in (header, values):
        if not part.is_file():
            raise BadInput(f"{part.name}: no such file; BART arrays are a .hdr and a .cfl")
    shape = _cfl_shape(header)
    _check_bytes(values.name, shape, 8, values.stat().st_size)
    with reading(values.name):
        return np.memmap(values, "<c8", "r", shape=shape, order="F"), (values, header)


def write_bart(path: str | Path, array: np.ndarray, dimensions: tuple[str, ...]) -> None:
    """Write `array` as path.cfl and path.hdr; dimensions names the BART dimension of each axis.

    An image volume (slices, H, W) has ("SLICE", "READ", "PHS1"), k-space ("SLICE", "COIL",
    "READ", "PHS1"), and samples of an image one more, "BATCH".
    """
    from ..runs.commits import commit_bytes, committing

    array = np.asarray(array)
    unknown = set(dimensions) - set(DIMENSIONS)
    if unknown or len(set(dimensions)) != len(dimensions) or len(dimensions) != array.ndim:
        raise ValueError(
            f"dimensions must name each of the {array.ndim} axes once, out of {DIMENSIONS}; "
            f"got {dimensions}"
        )
    places = [DIMENSIONS.index(name) for name in dimensions]
    shape = [1] * len(DIMENSIONS)
    for place, size in zip(places, array.shape, strict=True):
        shape[place] = size
    # Column-major order of the file is row-major order of the reversed axes.
    reverse = np.transpose(array, np.argsort(places)[::-1])
    path = Path(path)
    with committing(path.with_name(f"{path.name}.cfl")) as temporary:
        np.ascontiguousarray(reverse, dtype="<c8").tofile(temporary)
    text = "# Dimensions\n" + " ".join(map(str, shape)) + "\n# Creator\ninverse_score\n"
    commit_bytes(path.with_name(f"{path.name}.hdr"), text.encode())


def _plane(shape: tuple[int, ...], name: str) -> tuple[int, int]:
    used = {READ, PHS1, PHS2, COIL, SLICE}
    extra = [f"{DIMENSIONS[d]} {n}" for d, n in enumerate(shape) if n > 1 and d not in used]
    if extra:
        raise BadInput(
            f"{name} has the further dimensions {', '.join(extra)}: cut one out with `bart slice`"
        )
    if shape[PHS2] == 1:
        return READ, PHS1
    if shape[READ] > 1 and shape[SLICE] > 1:
        raise BadInput(f"{name} has READ, PHS1, PHS2 and SLICE above 1: cut one with `bart slice`")
    return PHS1, PHS2


def _stamp(path: Path) -> int:
    _, files = open_bart(path)
    return files[0].stat().st_mtime_ns


@lru_cache(maxsize=1)
def _along_readout(path: Path, _version: int) -> np.ndarray:
    """3-D k-space as (READ position, coils, PHS1, PHS2): the centred unitary inverse FFT."""
    data, _ = open_bart(path)
    kspace = data.reshape(data.shape[:4], order="F")
    with reading(path.name):
        shifted = np.fft.ifftshift(kspace, axes=READ)
        image = np.fft.fftshift(np.fft.ifft(shifted, axis=READ, norm="ortho"), axes=READ)
    return np.ascontiguousarray(np.moveaxis(image, 3, 1), dtype=np.complex64)


def _cfl_shape(header: Path) -> tuple[int, ...]:
    """The dimensions after the line "# Dimensions"; file names in the header are never used."""
    text = first_bytes(header, _MAX_HEADER + 1)
    if len(text) > _MAX_HEADER:
        raise BadInput(f"{header.name} is longer than {_MAX_HEADER} bytes, which no header is")
    lines = [line.strip() for line in text.decode("ascii", "replace").splitlines()]
    if "# Dimensions" not in lines[:-1]:
        raise BadInput(f"{header.name} has no line '# Dimensions' with numbers after it")
    words = lines[lines.index("# Dimensions") + 1].split()
    numbers = all(word.isascii() and word.isdigit() and len(word) < 20 for word in words)
    if not numbers or not 1 <= len(words) <= 16:
        raise BadInput(f"{header.name} must name 1 to 16 dimensions; got {' '.join(words)[:80]!r}")
    return _sixteen(tuple(int(word) for word in words), header.name)


def _sixteen(shape: tuple[int, ...], name: str) -> tuple[int, ...]:
    if not shape or min(shape) < 1:
        raise BadInput(f"{name}: dimensions must be 1 or more, got {shape}")
    return shape + (1,) * (16 - len(shape))


def _check_bytes(name: str, shape: tuple[int, ...], itemsize: int, there: int) -> None:
    needed = math.prod(shape) * itemsize
    if needed != there:
        raise BadInput(f"{name}: its header says {shape}, {needed} bytes; the file has {there}")
    if needed > LIMITS.array:
        raise BadInput(f"{name} has {needed} bytes; the limit is {LIMITS.array}")


def _open_ra(path: Path) -> np.ndarray:
    """.ra: magic, flags, element type (3 float, 4 complex), element size, bytes, ndims, dims."""
    head = first_bytes(path, 48 + 8 * 16)
    with reading(path.name):
        flags, kind, size, count, ndim = struct.unpack_from("<5Q", head, 8)
        if flags != 0 or (kind, size) not in {(3, 4), (3, 8), (4, 8), (4, 16)}:
            raise BadInput(f"{path.name} must be little-endian float or complex, got type {kind}")
        if not 1 <= ndim <= 16:
            raise BadInput(f"{path.name} must have 1 to 16 dimensions, got {ndim}")
        shape = _sixteen(struct.unpack_from(f"<{ndim}Q", head, 48), path.name)
        there = path.stat().st_size - 48 - 8 * ndim
        _check_bytes(path.name, shape, size, there)
        if count != there:
            raise BadInput(f"{path.name} declares {count} bytes of data, it has {there}")
        dtype = np.dtype(f"<{'f' if kind == 3 else 'c'}{size}")
        return np.memmap(path, dtype, "r", 48 + 8 * ndim, shape, order="F")
