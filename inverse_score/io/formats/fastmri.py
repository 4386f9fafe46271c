"""fastMRI HDF5 (Knoll et al. 2020; Zbontar et al. 2018): every layout in, k-space files out.

kspace (slices, coils, H, W) multi-coil or (slices, H, W) single-coil, complex; H is the readout,
W the phase encoding, undersampled and, outside [padding_left, padding_right), zero-filled.
reconstruction_rss, reconstruction_esc and ground_truth (slices, h, w) are references; mask (W,)
comes with undersampled files. The header is ISMRMRD XML in a string dataset.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import BadInput
from .. import guard
from ..runs.commits import committing
from ..scan import Scan, center_crop

REFERENCES = ("ground_truth", "reconstruction_rss", "reconstruction_esc")
# The names that fastMRI gives; any other text in this attribute could be about a patient.
ACQUISITIONS = frozenset(
    ("CORPD_FBK", "CORPDFS_FBK", "AXT1", "AXT1PRE", "AXT1POST", "AXT2", "AXFLAIR")
)
# What `simulate` writes; any other text could be about a patient.
SIMULATED = re.compile(r"simulated from images: [a-z0-9 ,.e+-]{0,80}")
_NAMESPACE = "{http://www.ismrm.org/ISMRMRD}"
_COMPOUNDS = ({"real", "imag"}, {"r", "i"}, {"re", "im"})


def open_fastmri(path: str | Path, *, nan: str = "refuse") -> Scan:
    """The volume of a fastMRI file (train, val, test or challenge; single- or multi-coil).

    mask is what was measured: the file's own, or the columns that are not zero in the middle
    slice, and never the zero-filled columns outside the encoded range. Raises BadInput on a
    layout that is not fastMRI's, saying which axes it found.
    """
    path = Path(path)
    with guard.open_hdf5(path) as file:
        kspace = guard.dataset(file, "kspace", ndim=(3, 4, 5), kinds="fcV")
        header = _header(file, path.name)
        shape = _axes(kspace, file, path.name)
        references = _references(file, shape[0], path)
        read = KSpaceSlice(path)
        measured, notes = _measured(file, read, shape, header, path.name)
        facts = _facts(file, header)
    crop, note = _crop(references, header, shape)
    return Scan(
        kind="kspace",
        shape=shape,
        read=read,
        files=(path,),
        format="fastMRI HDF5",
        mask=None if measured.all() else measured,
        crop=crop,
        references={name: ImageSlice(path, name) for name in references},
        facts=facts,
        notes=(*notes, *note),
        nan=nan,  # type: ignore[arg-type]
    )


@dataclass(frozen=True)
class KSpaceSlice:
    """Reads slice k of `kspace` as (coils, H, W) complex64; the file is open only meanwhile."""

    path: Path

    def __call__(self, k: int) -> np.ndarray:
        with guard.open_hdf5(self.path) as file:
            raw = guard.read_slice(guard.dataset(file, "kspace"), k)
        values = as_complex64(raw)
        return values[None] if values.ndim == 2 else values


@dataclass(frozen=True)
class ImageSlice:
    """Reads slice k of a reference image (slices, h, w) as float32."""

    path: Path
    key: str

    def __call__(self, k: int) -> np.ndarray:
        with guard.open_hdf5(self.path) as file:
            values = guard.read_slice(guard.dataset(file, self.key, ndim=3, kinds="iuf"), k)
        return values.astype(np.float32, copy=False)


def as_complex64(raw: np.ndarray) -> np.ndarray:
    """complex64 of complex numbers of any size, of (real, imag) compounds, or of (..., 2) reals."""
    if raw.dtype.names is not None:
        real, imag = raw.dtype.names
        return (raw[real] + 1j * raw[imag]).astype(np.complex64)
    if raw.dtype.kind == "f":
        return (raw[..., 0].astype(np.float32) + 1j * raw[..., 1]).astype(np.complex64)
    return raw.astype(np.complex64, copy=False)


def _axes(kspace, file, name: str) -> tuple[int, int, int, int]:
    """(slices, coils, H, W) of a kspace dataset, or BadInput that names what is ambiguous."""
    shape, dtype = kspace.shape, kspace.dtype
    if dtype.names is not None and set(dtype.names) not in _COMPOUNDS:
        raise BadInput(f"{name}: kspace must be complex; its fields are {dtype.names}")
    if dtype.kind == "f":
        if shape[-1] != 2:
            raise BadInput(
                f"{name}: kspace {shape} holds real numbers; magnitudes cannot be reconstructed: "
                "complex numbers, (real, imag) pairs or a last axis of 2 are needed"
            )
        shape = shape[:-1]
    if len(shape) == 4:
        return shape
    known = ("ismrmrd_header", "reconstruction_esc", "reconstruction_rss")
    if len(shape) == 3 and any(guard.has(file, key) for key in known):
        return (shape[0], 1, *shape[1:])
    raise BadInput(
        f"{name}: kspace {kspace.shape} could be (slices, H, W) or (coils, H, W), and the file "
        "does not say; name the axes, as in --axes slice,y,x or --axes coil,y,x"
    )


def _references(file, slices: int, path: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for key in REFERENCES:
        if guard.has(file, key):
            shape = guard.dataset(file, key, ndim=3, kinds="iuf").shape
            if shape[0] != slices:
                raise BadInput(f"{path.name}: {key} {shape} has not kspace's {slices} slices")
            found[key] = shape[1:]
    return found


def _measured(file, read: KSpaceSlice, shape, header: dict, name: str):
    """(what was measured, bool (W,) or (H, W); notes)."""
    width, notes = shape[-1], []
    inside = np.ones(width, bool)
    if {"left", "right"} <= header.keys():
        inside[:] = False
        inside[header["left"] : header["right"]] = True
    if guard.has(file, "mask"):
        mask = check_mask(guard.read_array(guard.dataset(file, "mask")), shape[-2:], name)
        return mask & inside, notes
    occupied = (read(shape[0] // 2) != 0).any(axis=(0, 1))
    if not occupied.any():
        raise BadInput(f"{name}, slice {shape[0] // 2}: every k-space value is zero")
    if "left" in header and (occupied & ~inside).any():
        notes.append("header's encoded range ignored: columns outside of it hold data")
        inside[:] = True
    missing = int((inside & ~occupied).sum())
    if missing:
        notes.append(f"mask taken from the data: {missing} of {inside.sum()} columns are zero")
    return inside & occupied, notes


def check_mask(mask: np.ndarray, shape: tuple[int, int], name: str) -> np.ndarray:
    """A file's mask as bool (W,) or (H, W): values 0 and 1, neither empty nor of another shape."""
    if mask.shape not in {shape[-1:], tuple(shape)}:
        raise BadInput(
            f"{name}: mask must be ({shape[1]},), one value a column, or {tuple(shape)}; "
            f"got {mask.shape}"
        )
    if not np.isin(mask, (0, 1)).all():
        raise BadInput(f"{name}: mask must hold 0 and 1 only; got {np.unique(mask)[:5]}")
    if not mask.any():
        raise BadInput(f"{name}: the mask is zero everywhere, so nothing was measured")
    return mask.astype(bool)


def _crop(references: Mapping, header: dict, shape) -> tuple[tuple[int, int] | None, list[str]]:
    """Size of the scanner's image: the reference's, else reconSpace's (x, y) as (rows, columns)."""
    size = next(iter(references.values()), header.get("recon"))
    if size is None:
        return None, []
    crop = (min(size[0], shape[-2]), min(size[1], shape[-1]))
    if crop == tuple(size):
        return crop, []
    return crop, [f"the image {shape[-2:]} is smaller than the header's crop {tuple(size)}"]


def _facts(file, header: dict) -> dict[str, str | int | float]:
    facts: dict[str, str | int | float] = {}
    acquisition = guard.attribute(file, "acquisition")
    if acquisition in ACQUISITIONS:
        facts["acquisition"] = str(acquisition)
    simulated = guard.attribute(file, "simulated")
    if isinstance(simulated, str) and SIMULATED.fullmatch(simulated):
        facts["simulated"] = simulated
    for key in ("acceleration", "num_low_frequency"):
        number = _number(guard.attribute(file, key))
        if number is not None:
            facts[key] = number
    if "left" in header:
        facts["padding_left"], facts["padding_right"] = header["left"], header["right"]
    return facts


def _number(value: object) -> float | None:
    """Attributes come as numbers, one-element arrays or their text, depending on the writer."""
    try:
        return float(np.asarray(value).reshape(-1)[0])
    except (TypeError, ValueError, IndexError):
        return None


def _header(file, name: str) -> dict:
    """recon (x, y), encoded (x, y) and the encoded columns [left, right) of the ISMRMRD header.

    padding_left = enc_y // 2 - center, padding_right = padding_left + maximum + 1.
    """
    if not guard.has(file, "ismrmrd_header"):
        return {}
    root = parse_xml(guard.read_text(file, "ismrmrd_header"), f"{name}, ismrmrd_header")
    found = {}
    for key, node in (("recon", "reconSpace"), ("encoded", "encodedSpace")):
        found[key] = tuple(
            _integer(root, f"encoding/{node}/matrixSize/{axis}", name) for axis in "xy"
        )
    limits = "encoding/encodingLimits/kspace_encoding_step_1"
    if root.find(_path(limits)) is not None:
        left = found["encoded"][1] // 2 - _integer(root, f"{limits}/center", name)
        right = left + _integer(root, f"{limits}/maximum", name) + 1
        if 0 <= left < right:
            found["left"], found["right"] = left, right
    return found


def parse_xml(text: str, what: str) -> ElementTree.Element:
    """The root of an XML document without entities: a DOCTYPE is refused."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise BadInput(f"{what} declares a DOCTYPE, which no scanner writes")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise BadInput(f"{what} is not XML ({error})") from None


def _path(path: str) -> str:
    return "/".join(_NAMESPACE + part for part in path.split("/"))


def _integer(root: ElementTree.Element, path: str, name: str) -> int:
    node = root.find(_path(path))
    if node is None or not (node.text or "").strip().isdigit():
        raise BadInput(f"{name}: ismrmrd_header has no number at {path}")
    return int(node.text.strip())  # type: ignore[union-attr]


def header_xml(kspace_shape: tuple[int, int], recon_shape: tuple[int, int]) -> str:
    """The part of an ISMRMRD header that fastMRI readers need; every column is encoded."""
    height, width = kspace_shape
    space = "<matrixSize><x>{}</x><y>{}</y><z>1</z></matrixSize>"
    return (
        '<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>'
        f"<encodedSpace>{space.format(height, width)}</encodedSpace>"
        f"<reconSpace>{space.format(*recon_shape)}</reconSpace>"
        "<encodingLimits><kspace_encoding_step_1><minimum>0</minimum>"
        f"<maximum>{width - 1}</maximum><center>{width // 2}</center>"
        "</kspace_encoding_step_1></encodingLimits>"
        "<trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"
    )


def write_fastmri(
    path: str | Path,
    kspace: np.ndarray,
    *,
    references: Mapping[str, np.ndarray],
    mask: np.ndarray | None = None,
    attributes: Mapping[str, str | float] | None = None,
) -> None:
    """A fastMRI file of kspace (slices, coils, H, W), or (slices, H, W) single-coil.

    references: images (slices, h, w) by dataset name. Written whole or not at all.
    """
    import h5py

    first = next(iter(references.values()))
    with committing(path) as temporary, h5py.File(temporary, "w") as file:
        file["ismrmrd_header"] = header_xml(kspace.shape[-2:], first.shape[-2:])
        checked = {"fletcher32": True, "chunks": (1, *kspace.shape[1:])}
        file.create_dataset("kspace", data=kspace.astype(np.complex64), **checked)
        for name, images in references.items():
            file.create_dataset(name, data=images.astype(np.float32), fletcher32=True)
        if mask is not None:
            file["mask"] = np.asarray(mask, dtype=bool)
        target = references.get("reconstruction_rss", first)
        file.attrs["max"], file.attrs["norm"] = float(target.max()), float(np.linalg.norm(target))
        file.attrs.update(dict(attributes or {}))


def reference_like(image: np.ndarray, crop: tuple[int, int] | None) -> np.ndarray:
    """A reconstruction (..., H, W) cut to the scanner's image size."""
    return image if crop is None else center_crop(image, crop)
