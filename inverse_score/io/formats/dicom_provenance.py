"""Where a DICOM result comes from: its source images, its equipment, its time."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..scan import Scan
from .dicom_header import dicom_reading, read_header

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def source_header(scan: Scan) -> Dataset:
    """The header of the DICOM file that the scan came from; empty for other formats."""
    from pydicom.dataset import Dataset

    return read_header(scan.files[0]).dataset if scan.format == "dicom" else Dataset()


def source_references(scan: Scan, count: int) -> Sequence[Dataset] | None:
    """References to the source images: one a slice, or the one multi-frame image."""
    from pydicom.dataset import Dataset

    if scan.format != "dicom" or len(scan.files) not in (1, count):
        return None
    references = []
    for path in scan.files:
        with dicom_reading(path.name):
            found = read_header(path, ["SOPClassUID", "SOPInstanceUID"]).dataset
            reference = Dataset()
            reference.ReferencedSOPClassUID = found.get("SOPClassUID", "")
            reference.ReferencedSOPInstanceUID = found.get("SOPInstanceUID", "")
        if not reference.ReferencedSOPClassUID or not reference.ReferencedSOPInstanceUID:
            return None
        purpose = dicom_code("121322", "Source image for image processing operation")
        reference.PurposeOfReferenceCodeSequence = [purpose]
        references.append(reference)
    return references


def dicom_code(value: str, meaning: str) -> Dataset:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def add_acquisition_equipment(made: Dataset, source: Dataset) -> None:
    """The scanner stays named, as the equipment that acquired."""
    if not source.get("Manufacturer"):
        return
    from pydicom.dataset import Dataset

    item = Dataset()
    item.Manufacturer = source.Manufacturer
    if source.get("ManufacturerModelName"):
        item.ManufacturerModelName = source.ManufacturerModelName
    item.PurposeOfReferenceCodeSequence = [dicom_code("109101", "Acquisition Equipment")]
    made.ContributingEquipmentSequence = [item]


def stamp_time(made: Dataset) -> None:
    now = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH") or time.time()))
    date, clock = time.strftime("%Y%m%d", now), time.strftime("%H%M%S", now)
    made.ContentDate = made.InstanceCreationDate = made.SeriesDate = date
    made.ContentTime = made.InstanceCreationTime = made.SeriesTime = clock
    made.TimezoneOffsetFromUTC = "+0000"
