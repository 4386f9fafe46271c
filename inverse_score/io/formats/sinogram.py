"""Sinogram HDF5, the container of this package for CT raw data: no standard one exists.

sinogram (slices, angles, detectors); angles (angles,) radians, or degrees where its attribute
`units` says so; `geometry`, a JSON text: type "parallel", "fan-flat" or "fan-arc",
detector_spacing_mm, pixel_mm, image_shape and, for fans, source_origin_mm, origin_detector_mm;
center_offset in detector pixels. Attributes: `value` "line_integral", "transmission" or "counts"
(with `I0`), mu_water_per_mm. ground_truth (slices, H, W) in HU is a reference.

An .npz holds the same: `sinogram`, `angles` and either `geometry`, or each of its entries as an
array of its own, as value, I0, mu_water_per_mm and units (of the angles) always are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import BadInput
from .. import guard
from ..runs.commits import committing
from ..scan import Scan
from .fastmri import SIMULATED, ImageSlice
from .npy import npz_array, npz_names

ABOUT = ("value", "I0", "mu_water_per_mm")
VALUES = ("line_integral", "transmission", "counts")
TYPES = ("parallel", "fan-flat", "fan-arc")
MU_WATER = 0.0193  # per mm at the 70 keV or so of a 120 kVp beam
_KEYS = {
    "type", "detector_spacing_mm", "pixel_mm", "image_shape", "source_origin_mm",
    "origin_detector_mm", "center_offset",
}  # fmt: skip


def open_sinogram(path: str | Path, *, nan: str = "refuse") -> Scan:
    """The volume of a sinogram file; scan.geometry also holds value, I0 and mu_water_per_mm."""
    path = Path(path)
    with guard.open_hdf5(path) as file:
        data = guard.dataset(file, "sinogram", ndim=3, kinds="iuf")
        angles = _angles(file, data.shape, path.name)
        geometry = hdf5_geometry(file, data.shape, path.name)
        facts, simulated = {}, guard.attribute(file, "simulated")
        if isinstance(simulated, str) and SIMULATED.fullmatch(simulated):
            facts["simulated"] = simulated
        references = {}
        if guard.has(file, "ground_truth"):
            truth = guard.dataset(file, "ground_truth", ndim=3, kinds="iuf").shape
            if truth != (data.shape[0], *geometry["image_shape"]):  # type: ignore[misc]
                raise BadInput(
                    f"{path.name}: ground_truth must be {data.shape[0]} slices of "
                    f"{geometry['image_shape']}; got {truth}"
                )
            references["ground_truth"] = ImageSlice(path, "ground_truth")
    return Scan(
        kind="sinogram",
        shape=data.shape,
        read=SinogramSlice(path),
        files=(path,),
        format="sinogram HDF5",
        units=str(geometry["value"]).replace("_", " "),
        angles=angles,
        geometry=geometry,
        references=references,
        facts=facts,
        nan=nan,  # type: ignore[arg-type]
    )


@dataclass(frozen=True)
class SinogramSlice:
    """Reads slice k of `sinogram` as (angles, detectors)."""

    path: Path

    def __call__(self, k: int) -> np.ndarray:
        with guard.open_hdf5(self.path) as file:
            return guard.read_slice(guard.dataset(file, "sinogram", ndim=3, kinds="iuf"), k)


def write_sinogram(
    path: str | Path,
    sinogram: np.ndarray,
    angles: np.ndarray,
    geometry: Mapping[str, object],
    *,
    references: Mapping[str, np.ndarray] | None = None,
    attributes: Mapping[str, str | float] | None = None,
) -> None:
    """sinogram (slices, angles, detectors), angles in radians. Written whole or not at all."""
    import h5py

    shape_keys = {key: value for key, value in geometry.items() if key in _KEYS}
    with committing(path) as temporary, h5py.File(temporary, "w") as file:
        chunks = (1, *sinogram.shape[1:])
        file.create_dataset(
            "sinogram", data=sinogram.astype(np.float32), fletcher32=True, chunks=chunks
        )
        file["angles"] = np.asarray(angles, dtype=np.float64)
        file["angles"].attrs["units"] = "rad"
        file["geometry"] = json.dumps(shape_keys)
        for key in ABOUT:
            if key in geometry:
                file.attrs[key] = geometry[key]
        for name, images in (references or {}).items():
            file.create_dataset(name, data=images.astype(np.float32), fletcher32=True)
        file.attrs.update(dict(attributes or {}))


def _angles(file, shape: tuple[int, ...], name: str) -> np.ndarray:
    data = guard.dataset(file, "angles", ndim=1, kinds="iuf")
    units = guard.attribute(data, "units") or "rad"
    return read_angles(guard.read_array(data), units, shape[1], name)


def hdf5_geometry(file, shape: tuple[int, ...], name: str) -> dict[str, object]:
    """The geometry of a sinogram in an open HDF5 file."""
    about = {key: guard.attribute(file, key) for key in ABOUT}
    return complete_geometry(_json(file, name), about, shape, name)


def complete_geometry(
    given: Mapping[str, object], about: Mapping[str, object], shape: tuple[int, ...], name: str
) -> dict[str, object]:
    """`given`, the keys of geometry, and `about` (value, I0, mu_water_per_mm), checked and filled.

    shape: of the sinogram. What is not given: parallel beams, spacings of 1 mm, line integrals.
    """
    geometry = dict(given)
    unknown = sorted(set(geometry) - _KEYS)
    if unknown:
        raise BadInput(f"{name}: geometry has unknown keys {unknown}; known: {sorted(_KEYS)}")
    kind = str(geometry.setdefault("type", "parallel")).replace("_", "-")
    if kind not in TYPES:
        raise BadInput(f"{name}: geometry type must be one of {TYPES}; got {kind!r}")
    geometry["type"] = kind
    for key in ("detector_spacing_mm", "pixel_mm"):
        _positive(geometry, key, name, default=1.0)
    if kind != "parallel":
        for key in ("source_origin_mm", "origin_detector_mm"):
            _positive(geometry, key, name)
    geometry["image_shape"] = _image_shape(geometry, shape, name)
    return geometry | _meaning(about, name)


def _meaning(about: Mapping[str, object], name: str) -> dict[str, object]:
    value = str(about.get("value") or "line_integral")
    if value not in VALUES:
        raise BadInput(f"{name}: value must be one of {VALUES}; got {value!r}")
    found: dict[str, object] = {"value": value}
    for key in ("I0", "mu_water_per_mm"):
        if about.get(key) is not None:
            found[key] = about[key]
            _positive(found, key, name)
    if value == "counts" and "I0" not in found:
        raise BadInput(f"{name}: counts need I0, the counts without an object")
    found.setdefault("mu_water_per_mm", MU_WATER)
    return found


def npz_geometry(path: Path, shape: tuple[int, ...]) -> dict[str, object]:
    """The geometry of a sinogram in an .npz, from `geometry` or from arrays named as its keys."""
    names = set(npz_names(path))
    values = {key: _plain(path, key) for key in names & (_KEYS | {"geometry", *ABOUT})}
    given = {key: values[key] for key in _KEYS & set(values)}
    if "geometry" in values:
        given |= _parsed(values["geometry"], path.name)
    return complete_geometry(given, {key: values.get(key) for key in ABOUT}, shape, path.name)


def _plain(path: Path, key: str) -> object:
    """A text, a number or a short list of an .npz."""
    array = npz_array(path, key)
    if array.dtype.kind not in "USiuf" or (array.size > 2 and array.dtype.kind not in "US"):
        raise BadInput(f"{path.name}: {key} must be a text or one or two numbers; got {array.dtype}"
                       f" of shape {array.shape}")  # fmt: skip
    value = array.tolist() if array.size != 1 else array.reshape(-1)[0].item()
    return guard.as_text(value, f"{path.name}, {key}") if isinstance(value, bytes) else value


def read_angles(angles: np.ndarray, units: object, count: int, name: str) -> np.ndarray:
    """(count,) float64 radians of angles in units "rad" or "deg"."""
    if units not in ("rad", "radian", "radians", "deg", "degree", "degrees"):
        raise BadInput(f"{name}: units of angles must be rad or deg; got {units!r}")
    if angles.shape != (count,) or angles.dtype.kind not in "iuf" or not np.isfinite(angles).all():
        raise BadInput(
            f"{name}: angles must be {count} finite numbers, one a row of the sinogram; "
            f"got {angles.shape}"
        )
    angles = np.deg2rad(angles) if str(units).startswith("deg") else angles
    if np.abs(angles).max() > 16 * math.pi:
        raise BadInput(
            f"{name}: angles reach {np.abs(angles).max():.4g} rad, which are degrees: set units "
            "to deg"
        )
    return angles.astype(np.float64)


def _json(file, name: str) -> dict[str, object]:
    text = guard.read_text(file, "geometry") if guard.has(file, "geometry") else None
    return _parsed(text or guard.attribute(file, "geometry") or "{}", name)


def _parsed(text: object, name: str) -> dict[str, object]:
    try:
        geometry = json.loads(str(text))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{name}: geometry is not JSON ({error})") from None
    if not isinstance(geometry, dict):
        raise BadInput(f"{name}: geometry must be a JSON object")
    return geometry


def _positive(geometry: dict, key: str, name: str, default: float | None = None) -> None:
    value = geometry.get(key, default)
    good = isinstance(value, (int, float)) and math.isfinite(value) and value > 0
    if not good or isinstance(value, bool):
        raise BadInput(f"{name}: geometry needs {key}, a number above 0; got {value!r}")
    geometry[key] = float(value)


def _image_shape(geometry: dict, shape: tuple[int, ...], name: str) -> tuple[int, int]:
    """(H, W) of the image; by default the square whose side the detector covers at 45 degrees."""
    given = geometry.get("image_shape")
    if given is None:
        width = shape[2] * geometry["detector_spacing_mm"] / geometry["pixel_mm"] / math.sqrt(2)
        return (int(width), int(width))
    if not (
        isinstance(given, list)
        and len(given) == 2
        and all(type(n) is int and 0 < n <= 8192 for n in given)
    ):
        raise BadInput(f"{name}: image_shape must be [rows, columns]; got {given!r}")
    return (given[0], given[1])
