"""Results as DICOM: a derived series of MR or CT images, marked as research, one scale for all.

Tags follow PS3.3 C.7.6.1.1 (derived images), C.8.3.1 (MR), C.8.2.1 (CT). By default nothing of the
patient is copied; with keep_phi the series joins the patient's study, as a PACS needs it.
"""

from __future__ import annotations

import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import BadInput
from ...version import __version__
from ..names import printable
from ..scan import Scan
from .dicom_provenance import (
    add_acquisition_equipment,
    dicom_code,
    source_header,
    source_references,
    stamp_time,
)
from .geometry import LPS_TO_RAS, unit_axes

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

NOTICE = "RESEARCH - NOT FOR DIAGNOSTIC USE"
MR, CT = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.2"
_PATIENT = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex",
    "PatientAge", "PatientSize", "PatientWeight", "PatientIdentityRemoved",
    "DeidentificationMethod", "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID",
    "StudyDescription", "AccessionNumber", "ReferringPhysicianName", "FrameOfReferenceUID",
    "PositionReferenceIndicator",
)  # fmt: skip
_ACQUISITION = (
    "BodyPartExamined", "Laterality", "PatientPosition", "ScanningSequence", "SequenceVariant",
    "ScanOptions", "MRAcquisitionType", "RepetitionTime", "EchoTime", "EchoTrainLength",
    "InversionTime", "FlipAngle", "MagneticFieldStrength", "ImagingFrequency", "KVP",
    "ConvolutionKernel", "GantryDetectorTilt", "SliceThickness", "SpacingBetweenSlices",
)  # fmt: skip


@dataclass(frozen=True)
class Derivation:
    """What the series says about itself: run names it for UIDs (equal run, equal UIDs), label is
    its short name, text how it was made; code a DICOM concept ("mean" or None)."""

    run: str
    label: str
    text: str
    code: str | None = None


def write_dicom(
    folder: str | Path,
    volume: np.ndarray,
    scan: Scan,
    derivation: Derivation,
    *,
    affine: np.ndarray | None = None,
    keep_phi: bool = False,
    allow_no_geometry: bool = False,
    overwrite: bool = False,
) -> list[Path]:
    """volume (slices, H, W) as one DICOM file a slice in a new folder; returns the files.

    affine of (column, row, slice), RAS+; None takes the scan's. Without either, BadInput unless
    allow_no_geometry, and then the comment says that positions mean nothing. HU are stored as
    whole numbers with intercept -1024; other values with one slope for the whole series, exact
    where they are whole numbers below 65536. The time is SOURCE_DATE_EPOCH where it is set.
    """
    volume = np.asarray(volume)
    if volume.ndim != 3 or np.iscomplexobj(volume) or not np.isfinite(volume).all():
        raise ValueError(
            f"a DICOM volume must be real, finite and (slices, H, W); got {volume.dtype} "
            f"{volume.shape}"
        )
    affine = scan.affine if affine is None else affine
    if affine is None and not allow_no_geometry:
        raise BadInput(
            f"{scan.name} has no geometry, so no DICOM series can say where its slices lie; write "
            "NIfTI or HDF5, or allow it (--allow-no-geometry)"
        )
    is_ct = scan.units == "HU"
    stored, scale = _stored(volume, is_ct)
    common = _common(scan, derivation, is_ct, keep_phi)
    if affine is None:
        common.ImageComments = f"{NOTICE}. Geometry unknown: positions and spacing mean nothing."
    _describe_pixels(common, volume, scale, is_ct)
    sources = source_references(scan, len(volume)) if keep_phi else None
    slices = [
        _slice(common, stored[k], k, np.eye(4) if affine is None else affine, derivation, sources)
        for k in range(len(volume))
    ]
    return _save(Path(folder), slices, overwrite)


def _stored(volume: np.ndarray, is_ct: bool) -> tuple[np.ndarray, tuple[float, float]]:
    """(16-bit pixels, (slope, intercept) as the decimal strings will say): one scale a series."""
    from pydicom.valuerep import format_number_as_ds

    if is_ct:
        return np.clip(np.rint(volume) + 1024, -32768, 32767).astype(np.int16), (1.0, -1024.0)
    low, high = min(0.0, float(volume.min())), float(volume.max())
    whole = low == 0 and high < 65536 and np.array_equal(volume, np.rint(volume))
    slope = 1.0 if whole else float(format_number_as_ds((high - low) / 65535 or 1.0))
    intercept = float(format_number_as_ds(low))
    stored = np.rint((volume.astype(np.float64) - intercept) / slope)
    return np.clip(stored, 0, 65535).astype(np.uint16), (slope, intercept)


def _common(scan: Scan, derivation: Derivation, is_ct: bool, keep_phi: bool) -> Dataset:
    """Everything but the slice: patient and study, series, equipment, acquisition, derivation."""
    from pydicom.dataset import Dataset
    from pydicom.uid import generate_uid

    source = source_header(scan)
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    made.SOPClassUID = CT if is_ct else MR
    made.Modality = "CT" if is_ct else "MR"
    _identify(made, source, scan, derivation, keep_phi)
    for name in _ACQUISITION:
        if source.get(name) not in (None, ""):
            made[name] = source[name]
    _fill_required(made, is_ct)
    made.SeriesInstanceUID = generate_uid(entropy_srcs=["series", derivation.run, derivation.label])
    made.SeriesNumber = 9000 + int(source.get("SeriesNumber") or 0) % 1000
    made.SeriesDescription = printable(f"{derivation.label} {NOTICE}", 64)
    made.ImageType = ["DERIVED", "SECONDARY", "AXIAL" if is_ct else "OTHER"]
    made.ContentQualification = "RESEARCH"
    made.ImageComments = NOTICE
    made.BurnedInAnnotation = "NO"
    made.DerivationDescription = printable(derivation.text, 1024)
    if derivation.code == "mean":
        made.DerivationCodeSequence = [dicom_code("113051", "Pixel by pixel mean")]
    made.Manufacturer, made.ManufacturerModelName = "inverse_score", "inverse_score"
    made.SoftwareVersions = __version__
    stamp_time(made)
    add_acquisition_equipment(made, source)
    return made


def _identify(
    made: Dataset, source: Dataset, scan: Scan, derivation: Derivation, keep_phi: bool
) -> None:
    from pydicom.uid import generate_uid

    for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate"):
        setattr(made, name, "")
    for name in ("StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"):
        setattr(made, name, "")
    made.PositionReferenceIndicator = ""
    if keep_phi:
        for name in _PATIENT:
            if source.get(name) not in (None, ""):
                made[name] = source[name]
    else:
        made.PatientIdentityRemoved = "YES"
        made.DeidentificationMethod = "patient, study and dates not copied"
    for name in ("StudyInstanceUID", "FrameOfReferenceUID"):
        if not made.get(name):
            origin = str(source.get(name) or "") or derivation.run
            setattr(made, name, generate_uid(entropy_srcs=[name, origin, derivation.run]))


def _fill_required(made: Dataset, is_ct: bool) -> None:
    """Type 1 elements need a value, type 2 elements a place."""
    if is_ct:
        required = {"KVP": None, "AcquisitionNumber": None}
    else:
        required = {"ScanningSequence": "RM", "SequenceVariant": "NONE", "ScanOptions": ""}
        required |= {"MRAcquisitionType": "", "RepetitionTime": None, "EchoTime": None}
        required |= {"EchoTrainLength": None}
        if made.get("ScanningSequence") and "IR" in str(made.ScanningSequence):
            required["InversionTime"] = None
    # Absent laterality means a paired body part left unsaid; empty means not known.
    required |= {"PatientPosition": "", "Laterality": "", "SliceThickness": None}
    for name, value in required.items():
        if name not in made:
            setattr(made, name, value)


def _describe_pixels(made: Dataset, volume: np.ndarray, scale, is_ct: bool) -> None:
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows, made.Columns = volume.shape[1:]
    made.BitsAllocated = made.BitsStored = 16
    made.HighBit, made.PixelRepresentation = 15, int(is_ct)
    made.RescaleSlope, made.RescaleIntercept = scale
    made.RescaleType = "HU" if is_ct else "US"
    if is_ct:
        made.WindowCenter, made.WindowWidth = 40, 400
        return
    low, high = (float(v) for v in np.percentile(volume, (0.5, 99.5)))
    made.WindowCenter = float(f"{(low + high) / 2:.6g}")
    made.WindowWidth = float(f"{max(high - low, 1e-6 * abs(high), 1e-12):.6g}")


def _slice(common: Dataset, pixels: np.ndarray, k: int, affine, derivation, sources) -> Dataset:
    import copy

    from pydicom.uid import generate_uid
    from pydicom.valuerep import format_number_as_ds

    made = copy.deepcopy(common)
    lps = LPS_TO_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    directions = [*(lps[:3, 0] / spacing[0]), *(lps[:3, 1] / spacing[1])]
    axes = unit_axes(directions, "the affine's columns and rows")
    position = lps @ (0, 0, k, 1)
    made.SOPInstanceUID = generate_uid(
        entropy_srcs=["slice", derivation.run, derivation.label, str(k)]
    )
    made.InstanceNumber = k + 1
    made.ImagePositionPatient = [format_number_as_ds(float(v)) for v in position[:3]]
    made.ImageOrientationPatient = [format_number_as_ds(float(v)) for v in axes]
    made.PixelSpacing = [format_number_as_ds(float(spacing[axis])) for axis in (1, 0)]
    normal = np.cross(axes[:3], axes[3:])
    if made.get("SliceThickness") in (None, ""):
        made.SliceThickness = format_number_as_ds(float(abs(lps[:3, 2] @ normal)))
    if sources is not None:
        made.SourceImageSequence = [sources[k if len(sources) > 1 else 0]]
    made.set_pixel_data(pixels, "MONOCHROME2", 16, generate_instance_uid=False)
    return made


def _save(folder: Path, slices: list[Dataset], overwrite: bool) -> list[Path]:
    """All files of the series appear at once, in a folder that was not there."""
    from pydicom.uid import ExplicitVRLittleEndian

    if folder.exists() and not overwrite:
        raise BadInput(f"{folder.name} exists; allow to replace it (--overwrite) or choose another")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    draft.mkdir()
    try:
        for k, made in enumerate(slices):
            made.ensure_file_meta()
            made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            # A preamble of zeros: what stands there may be run as a program.
            made.preamble = bytes(128)
            made.save_as(draft / f"{k + 1:05d}.dcm", enforce_file_format=True)
        if folder.exists():
            shutil.rmtree(folder)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return [folder / f"{k + 1:05d}.dcm" for k in range(len(slices))]
