"""Plain arrays as scans: any HDF5, .npz or .npy, by the name of the array and of its axes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ...errors import BadInput
from .. import guard
from ..guard.sniff import sniff
from ..scan import AXES, Scan, sampled
from .fastmri import as_complex64, check_mask
from .npy import npy_array, npz_array, npz_names
from .sinogram import hdf5_geometry, npz_geometry, read_angles

NAMES = ("slice", "coil", "y", "x", "angle", "detector", "complex")
_ORDER = {
    "kspace": ("slice", "coil", "y", "x"),
    "sinogram": ("slice", "angle", "detector"),
    "image": ("slice", "y", "x"),
}
_SYNONYMS = {
    "readout": "y", "row": "y", "h": "y", "phase": "x", "column": "x", "w": "x",
    "slices": "slice", "z": "slice", "coils": "coil", "angles": "angle", "detectors": "detector",
}  # fmt: skip


def read_array(
    path: str | Path,
    key: str | None = None,
    axes: str | None = None,
    kind: str | None = None,
    nan: str = "refuse",
) -> Scan:
    """Array `key` of an HDF5, .npz or .npy file as a scan.

    axes names the axes in order, as "slice,coil,y,x" (y the readout or row, x the phase encoding
    or column, the undersampled one), "slice,angle,detector", or with "complex" for an axis of
    (real, imaginary) pairs. Without it only what can mean one thing is read: 4 axes are k-space,
    2 are (y, x) or (angle, detector), and 3 a stack where `kind` is "image" or "sinogram". A
    dataset `mask` beside k-space, and `angles` (radians) beside a sinogram, belong to it.
    """
    path = Path(path)
    form = sniff(path)
    key = _key(path, form, key)
    shape, dtype = _declared(path, form, key)
    order = _order(path, key, shape, dtype, axes, kind)
    kind = _kind(order, kind, dtype)
    read = ArraySlice(path, form, key, order, kind)
    sizes = dict(zip(order, shape, strict=True))
    full = tuple(sizes.get(name, 1) for name in _ORDER[kind])
    extras = _beside(path, form, key, kind, full)
    if kind == "kspace" and "mask" not in extras:
        extras["mask"] = sampled(read, full[0])
    name = {"hdf5": "HDF5"}.get(form, form)
    return Scan(kind, full, read, (path,), name, nan=nan, **extras)  # type: ignore[arg-type]


@dataclass(frozen=True)
class ArraySlice:
    """Reads slice k of one array, its axes brought into the order of `Scan`."""

    path: Path
    form: str
    key: str
    order: tuple[str, ...]
    kind: str

    def __call__(self, k: int) -> np.ndarray:
        where = self.order.index("slice") if "slice" in self.order else None
        index = tuple(k if axis == where else slice(None) for axis in range(len(self.order)))
        if self.form == "hdf5":
            with guard.open_hdf5(self.path) as file:
                data = guard.dataset(file, self.key)
                with guard.reading(f"{self.path.name}, dataset {self.key!r}, slice {k}"):
                    values = np.asarray(data[index])
        else:
            values = np.asarray(_loaded(self.path, self.form, self.key, _stamp(self.path))[index])
        return self._arranged(values)

    def _arranged(self, values: np.ndarray) -> np.ndarray:
        order = [name for name in self.order if name != "slice"]
        if "complex" in order:
            values = np.moveaxis(values, order.index("complex"), -1)
            order.remove("complex")
            values = as_complex64(np.ascontiguousarray(values, dtype=np.float32))
        elif values.dtype.names is not None or self.kind == "kspace":
            values = as_complex64(values)
        wanted = [name for name in _ORDER[self.kind][1:] if name in order]
        values = np.transpose(values, [order.index(name) for name in wanted])
        return values[None] if self.kind == "kspace" and "coil" not in order else values


def _stamp(path: Path) -> int:
    return path.stat().st_mtime_ns


@lru_cache(maxsize=2)
def _loaded(path: Path, form: str, key: str, _version: int) -> np.ndarray:
    return npy_array(path) if form == "npy" else npz_array(path, key)


def _key(path: Path, form: str, key: str | None) -> str:
    if form == "npy":
        return key or path.stem
    if form == "npz":
        names = npz_names(path)
    elif form == "hdf5":
        with guard.open_hdf5(path) as file:
            names = sorted(file)
    else:
        raise BadInput(f"{path.name} is {form}; HDF5, npz and npy hold named arrays")
    for usual in ("kspace", "sinogram", "image", "reconstruction"):
        if key is None and usual in names:
            return usual
    if key is None and len(names) != 1:
        raise BadInput(f"{path.name} holds {names[:20]}: name one (--key)")
    return names[0] if key is None else key


def _declared(path: Path, form: str, key: str) -> tuple[tuple[int, ...], np.dtype]:
    if form == "hdf5":
        with guard.open_hdf5(path) as file:
            data = guard.dataset(file, key)
            return data.shape, data.dtype
    data = _loaded(path, form, key, _stamp(path))
    return data.shape, data.dtype


def _order(path: Path, key: str, shape, dtype, axes: str | None, kind: str | None):
    """Names of the array's axes, given or beyond doubt."""
    what = f"{path.name}, {key!r} of shape {tuple(shape)}"
    if axes is not None:
        order = tuple(_SYNONYMS.get(word.strip().lower(), word.strip()) for word in axes.split(","))
        if len(order) != len(shape) or set(order) - set(NAMES) or len(set(order)) < len(order):
            raise BadInput(f"{what} needs one of {NAMES} for each axis, got --axes {axes!r}")
        if "complex" in order and (dtype.kind not in "iuf" or shape[order.index("complex")] != 2):
            raise BadInput(f"{what}: the complex axis must hold two real numbers, got {dtype}")
        return order
    pair = shape[-1] == 2 and dtype.kind == "f" and kind != "sinogram" and len(shape) > 2
    tail = ("complex",) if pair else ()
    count = len(shape) - len(tail)
    if count == 4 and kind in (None, "kspace"):
        return ("slice", "coil", "y", "x", *tail)
    if count == 2 and kind == "sinogram":
        return ("angle", "detector")
    if count == 2:
        return ("y", "x", *tail)
    if count == 3 and kind in ("image", "sinogram"):
        return (*_ORDER[kind], *tail)
    raise BadInput(
        f"{what} could be (slice, y, x), (coil, y, x) or others: name its axes, as in "
        "--axes slice,y,x or --axes coil,y,x"
    )


def _kind(order: tuple[str, ...], kind: str | None, dtype: np.dtype) -> str:
    """The kind that has these axes; complex numbers are k-space unless images were asked for."""
    if {"angle", "detector"} & set(order):
        found = "sinogram"
    elif "coil" in order:
        found = "kspace"
    elif kind is not None:
        found = kind
    else:
        is_complex = dtype.kind in "cV" or "complex" in order
        found = "kspace" if is_complex else "image"
    missing = set(_ORDER[found]) - set(order) - {"slice", "coil"}
    if missing or (kind is not None and kind != found):
        raise BadInput(
            f"expected {kind or found} with the axes {AXES[kind or found]}, got the axes {order}"
        )
    if found == "kspace" and dtype.kind not in "cV" and "complex" not in order:
        raise BadInput(
            f"k-space must be complex, got {dtype}: magnitudes cannot be reconstructed; for pairs "
            "of real and imaginary parts name their axis (--axes ...,complex)"
        )
    return found


def _beside(path: Path, form: str, key: str, kind: str, shape: tuple[int, ...]) -> dict:
    """The mask of k-space, or the angles of a sinogram, where the file holds them."""
    name = {"kspace": "mask", "sinogram": "angles"}.get(kind)
    if name is None:
        return {}
    values = _companion(path, form, name)
    if kind == "kspace":
        if values is None:
            return {}
        mask = check_mask(values, (shape[-2], shape[-1]), path.name)
        return {"mask": None if mask.all() else mask}
    return _sinogram(path, form, key, values, shape)


def _sinogram(path: Path, form: str, key: str, angles: np.ndarray | None, shape: tuple) -> dict:
    """Angles, geometry and units of a sinogram (see `sinogram`)."""
    if angles is None:
        raise BadInput(
            f"{path.name}: a sinogram needs `angles` in radians beside {key!r} in one .npz or HDF5 "
            "file, and unless its beams are parallel and its spacings 1 mm, `geometry` (JSON: "
            "type, detector_spacing_mm, pixel_mm, image_shape; source_origin_mm and "
            "origin_detector_mm for fans)"
        )
    if form == "npz":
        units = _companion(path, form, "units")
        geometry = npz_geometry(path, shape)
        units = "rad" if units is None else str(units)
    else:
        with guard.open_hdf5(path) as file:
            units = guard.attribute(guard.dataset(file, "angles"), "units") or "rad"
            geometry = hdf5_geometry(file, shape, path.name)
    return {
        "angles": read_angles(angles, units, shape[1], path.name),
        "geometry": geometry,
        "units": str(geometry["value"]).replace("_", " "),
    }


def _companion(path: Path, form: str, name: str) -> np.ndarray | None:
    if form == "hdf5":
        with guard.open_hdf5(path) as file:
            if not guard.has(file, name):
                return None
            return guard.read_array(guard.dataset(file, name, ndim=(1, 2), kinds="iufb"))
    if form == "npz" and name in npz_names(path):
        return npz_array(path, name)
    return None
