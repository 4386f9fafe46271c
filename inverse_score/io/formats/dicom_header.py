"""DICOM headers: opened with care, and never quoted, because a value may be a name."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import BadInput
from ..guard.sniff import first_bytes

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

DEFLATED = "1.2.840.10008.1.2.1.99"
_FLOAT_BITS = {b"\xe0\x7f\x10\x00": 0, b"\xe0\x7f\x08\x00": 32, b"\xe0\x7f\x09\x00": 64}


@dataclass(frozen=True)
class Header:
    """A dataset without its pixels, and where those start.

    float_bits: 0 for integers (PixelData), 32 or 64 for (Double)FloatPixelData, None without
    any pixel element. offset: position of the pixel element's tag.
    """

    dataset: Dataset
    float_bits: int | None
    offset: int


@contextmanager
def dicom_reading(what: str) -> Iterator[None]:
    """Any failure inside pydicom as a BadInput without values, and its warnings unsaid.

    pydicom quotes offending values in errors and warnings, and a value may be a name.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (BadInput, MemoryError):
        raise
    except Exception as error:
        raise BadInput(f"{what} is damaged or cut DICOM ({type(error).__name__})") from None


def read_header(path: str | Path, tags: list[str] | None = None) -> Header:
    """The header of a DICOM file, of all elements or those named; deflated files are refused."""
    import pydicom

    path = Path(path)
    head = first_bytes(path)
    bare = head[128:132] != b"DICM"
    with dicom_reading(path.name):
        from pydicom.filereader import read_file_meta_info

        if not bare:
            _refuse_deflated(path, read_file_meta_info(path))
        with path.open("rb") as file:
            found = pydicom.dcmread(
                file, stop_before_pixels=True, force=bare, specific_tags=tags, defer_size=1 << 20
            )
            offset = file.tell()
            tag = file.read(4)
        if "TransferSyntaxUID" not in found.file_meta:
            found.file_meta.TransferSyntaxUID = _native_syntax(found)
        if not found.original_encoding[1]:
            tag = tag[1::-1] + tag[:1:-1]
        return Header(found, _FLOAT_BITS.get(tag), offset)


def _refuse_deflated(path: Path, meta: Dataset) -> None:
    if str(meta.get("TransferSyntaxUID", "")) == DEFLATED:
        raise BadInput(
            f"{path.name} is deflated DICOM, which may inflate a thousandfold and is not read; "
            "rewrite it with `dcmconv +te IN OUT` (DCMTK)"
        )


def _native_syntax(dataset: Dataset) -> UID:
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    implicit, little = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian
