"""DICOM frames: one record for every image plane, classic or multi-frame, without pixels.

No text of a file is kept but the few facts named here and keys that are only compared, so that
patient data cannot leak from a record. Positions and directions are DICOM's (LPS, mm).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import BadInput
from ..guard import check_size, check_slice
from ..names import printable
from .dicom_header import Header, dicom_reading, read_header
from .geometry import unit_axes

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_FACTS = (
    "Modality", "Manufacturer", "MagneticFieldStrength", "ScanningSequence", "MRAcquisitionType",
    "RepetitionTime", "EchoTime", "InversionTime", "FlipAngle", "SliceThickness", "KVP",
    "ConvolutionKernel", "BodyPartExamined", "LossyImageCompression",
)  # fmt: skip
_TAGS = (
    *_FACTS, "ImageType", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID",
    "FrameOfReferenceUID", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel",
    "BitsAllocated", "BitsStored", "PixelRepresentation", "PhotometricInterpretation",
    "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept",
    "RescaleType", "ModalityLUTSequence", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "SpacingBetweenSlices", "DiffusionBValue", "PerFrameFunctionalGroupsSequence",
    "SharedFunctionalGroupsSequence", "RealWorldValueMappingSequence",
)  # fmt: skip
_DICOMDIR = "1.2.840.10008.1.3.10"


@dataclass(frozen=True)
class Frame:
    """One image plane: where its pixels are, how they become values, where it lies (LPS, mm)."""

    path: Path
    index: int
    frames: int
    size: tuple[int, int]
    syntax: str
    modality: str
    series: str
    slope: float
    intercept: float
    units: str
    padding: tuple[float, float] | None
    inverted: tuple[int, int] | None
    position: tuple[float, float, float] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, float] | None
    thickness: float
    group: tuple
    derived: bool
    facts: tuple[tuple[str, str], ...]

    @property
    def normal(self) -> np.ndarray:
        """Unit vector across the slice: row direction x column direction."""
        along, down = np.array(self.orientation).reshape(2, 3)
        return np.cross(along, down)


def frames_of(path: str | Path) -> list[Frame]:
    """Records of all frames of a file; an empty list where it is DICOM without an image."""
    path = Path(path)
    header = read_header(path, list(_TAGS))
    with dicom_reading(path.name):
        found = header.dataset
        if found.get("Rows") and found.get("Columns") and header.float_bits is not None:
            _check_image(path, header)
            return list(_frames(path, header))
        if _is_no_image(found):
            return []
    raise BadInput(
        f"{path.name} is DICOM without Rows, Columns and PixelData: it is cut off, or no image"
    )


def _is_no_image(found: Dataset) -> bool:
    """A whole file of another sort (a report, a plan, a DICOMDIR), not an image that was cut."""
    from pydicom.uid import UID

    if "Rows" in found or "SamplesPerPixel" in found:
        return False
    told = str(found.get("SOPClassUID", "")), str(found.file_meta.get("MediaStorageSOPClassUID"))
    if told[1] == _DICOMDIR:
        return True
    return bool(told[0]) and told[0] == told[1] and "Image Storage" not in UID(told[0]).name


def _check_image(path: Path, header: Header) -> None:
    """Sizes against the file, before any pixel is read."""
    found, there = header.dataset, path.stat().st_size - header.offset
    rows, columns = int(found.Rows), int(found.Columns)
    frames = int(found.get("NumberOfFrames") or 1)
    bits = header.float_bits or int(found.BitsAllocated)
    if (found.get("SamplesPerPixel") or 1) != 1:
        raise BadInput(f"{path.name} is a colour picture (SamplesPerPixel), not a scan")
    if bits not in (8, 16, 32, 64) or frames < 1:
        raise BadInput(f"{path.name}: BitsAllocated must be 8, 16, 32 or 64; got {bits}")
    frame = rows * columns * bits // 8
    what = f"{path.name}, {frames} frames of {rows} x {columns} x {bits} bits"
    check_slice(what, 2 * frame)
    check_size(what, frame * frames, there)
    if not found.file_meta.TransferSyntaxUID.is_compressed and frame * frames > there:
        raise BadInput(f"{what}: cut off; they need {frame * frames} bytes, the file has {there}")


def _frames(path: Path, header: Header) -> Iterator[Frame]:
    found = header.dataset
    count = int(found.get("NumberOfFrames") or 1)
    per_frame = found.get("PerFrameFunctionalGroupsSequence")
    shared = found.get("SharedFunctionalGroupsSequence")
    if count > 1 and per_frame is None:
        raise BadInput(
            f"{path.name} has {count} frames but no PerFrameFunctionalGroupsSequence, hence no "
            "positions: a cine or a screen capture, not a volume"
        )
    if per_frame is not None and len(per_frame) != count:
        raise BadInput(f"{path.name} has {count} frames but positions for {len(per_frame)}")
    common = _common(path, header, count)
    for index in range(count):
        levels = [per_frame[index]] if per_frame is not None else []
        levels += [shared[0]] if shared else []
        yield Frame(index=index, **common, **_plane(found, levels), **_values(found, levels))


def _common(path: Path, header: Header, count: int) -> dict:
    found = header.dataset
    kinds = [str(kind).upper() for kind in _many(found.get("ImageType"))]
    facts = tuple(
        (name, printable("\\".join(map(str, _many(found.get(name)))), 64))
        for name in _FACTS
        if found.get(name) not in (None, "")
    )
    return {
        "path": path,
        "frames": count,
        "size": (int(found.Rows), int(found.Columns)),
        "syntax": str(found.file_meta.TransferSyntaxUID),
        "modality": str(found.get("Modality", "")),
        "series": str(found.get("SeriesInstanceUID", "")),
        "derived": "LOCALIZER" in kinds or kinds[:2] == ["DERIVED", "SECONDARY"],
        "facts": facts,
    }


def _plane(header: Dataset, levels: list) -> dict:
    place = _group(header, levels, "PlanePositionSequence")
    turn = _group(header, levels, "PlaneOrientationSequence")
    measures = _group(header, levels, "PixelMeasuresSequence")
    orientation = _floats(turn.get("ImageOrientationPatient"), 6)
    if orientation is not None:
        orientation = unit_axes(orientation, "ImageOrientationPatient")
    spacing = _floats(measures.get("PixelSpacing"), 2)
    if spacing is not None and min(spacing) <= 0:
        raise BadInput(f"PixelSpacing must be positive, got {spacing}")
    thickness = measures.get("SpacingBetweenSlices") or measures.get("SliceThickness") or 1.0
    return {
        "position": _floats(place.get("ImagePositionPatient"), 3),
        "orientation": orientation,
        "spacing": spacing,
        "thickness": abs(float(thickness)),
        "group": _group_key(header, levels, orientation),
    }


def _values(header: Dataset, levels: list) -> dict:
    """Slope, intercept, units; HU stays HU in MONOCHROME1, where only the display is inverted."""
    mapping = _group(header, levels, "PixelValueTransformationSequence")
    if "RescaleSlope" not in mapping:
        mapping = _real_world(header, levels) or mapping
    if "ModalityLUTSequence" in header:
        raise BadInput("a ModalityLUTSequence (a table of values) is not read; only slope and "
                       "intercept are")  # fmt: skip
    slope, intercept = mapping.get("RescaleSlope"), mapping.get("RescaleIntercept")
    kind = str(mapping.get("RescaleType") or "").upper()
    is_ct = header.get("Modality") == "CT" and intercept is not None and kind in {"", "HU"}
    units = "HU" if is_ct else ""
    inverted = header.get("PhotometricInterpretation") == "MONOCHROME1" and not units
    return {
        "slope": 1.0 if slope in (None, "") else float(slope),
        "intercept": 0.0 if intercept in (None, "") else float(intercept),
        "units": units,
        "padding": _padding(header),
        "inverted": _stored_range(header) if inverted else None,
    }


def _real_world(header: Dataset, levels: list) -> dict:
    """Slope and intercept of a parametric map, as the names of the modality transform."""
    found = _group(header, levels, "RealWorldValueMappingSequence")
    if "RealWorldValueSlope" not in found:
        return {}
    return {
        "RescaleSlope": found["RealWorldValueSlope"].value,
        "RescaleIntercept": found["RealWorldValueIntercept"].value,
        "RescaleType": "US",
    }


def _padding(header: Dataset) -> tuple[float, float] | None:
    first = header.get("PixelPaddingValue")
    if not isinstance(first, (int, float)):
        return None
    last = header.get("PixelPaddingRangeLimit")
    last = first if not isinstance(last, (int, float)) else last
    return min(first, last), max(first, last)


def _stored_range(header: Dataset) -> tuple[int, int]:
    bits = int(header.get("BitsStored") or header.BitsAllocated)
    if header.get("PixelRepresentation", 0):
        return -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1


def _group_key(header: Dataset, levels: list, orientation: tuple | None) -> tuple:
    """What slices of one volume share; any text in it serves only for comparison."""
    effective = _group(header, levels, "MREchoSequence").get("EffectiveEchoTime")
    diffusion = _group(header, levels, "MRDiffusionSequence").get("DiffusionBValue")
    kinds = _group(header, levels, "MRImageFrameTypeSequence").get("FrameType")
    turn = None if orientation is None else tuple(round(value, 3) + 0.0 for value in orientation)
    values = [
        str(header.get(name) or "")
        for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality")
    ]
    values += [int(header.Rows), int(header.Columns), turn]
    values += [str(effective or header.get("EchoTime") or "")]
    values += [str(diffusion or header.get("DiffusionBValue") or "")]
    values += ["\\".join(map(str, _many(kinds or header.get("ImageType"))))]
    values += ["\\".join(map(str, _many(header.get("ConvolutionKernel"))))]
    return tuple(values)


def _group(header: Dataset, levels: list, name: str):
    """The first item of a functional group: per frame, else shared, else the header itself."""
    for level in levels:
        if level.get(name):
            return level[name].value[0]
    return header


def _many(value) -> list:
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) or not hasattr(value, "__len__") else list(value)


def _floats(value, count: int) -> tuple | None:
    if value in (None, ""):
        return None
    found = tuple(float(part) for part in value)
    if len(found) != count or not np.isfinite(found).all():
        raise BadInput(f"a position, direction or spacing must be {count} numbers, got {found}")
    return found
