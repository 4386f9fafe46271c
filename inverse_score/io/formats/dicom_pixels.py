"""DICOM pixels: one frame decoded, and turned into the values that it stands for."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

from ...errors import BadInput
from ..guard.worker import ask
from ..names import printable
from .dicom_frames import Frame
from .dicom_header import dicom_reading, read_header

AIR = -1000.0
_PLUGINS = {
    "1.2.840.10008.1.2.4.50": "pylibjpeg pylibjpeg-libjpeg",
    "1.2.840.10008.1.2.4.51": "pylibjpeg pylibjpeg-libjpeg",
    "1.2.840.10008.1.2.4.57": "pylibjpeg pylibjpeg-libjpeg",
    "1.2.840.10008.1.2.4.70": "pylibjpeg pylibjpeg-libjpeg",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    "1.2.840.10008.1.2.4.90": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.91": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.201": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.202": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.203": "pylibjpeg pylibjpeg-openjpeg",
}


def read_frame(frame: Frame) -> np.ndarray:
    """float32 (rows, columns) in the frame's units: slope * stored + intercept.

    Padding becomes air in HU and 0 elsewhere. MONOCHROME1 without HU is inverted within its
    stored range, so that more is brighter; HU are physical and stay.
    """
    stored = _decode(frame)
    if stored.shape != frame.size:
        raise BadInput(f"{_where(frame)}: decoded to {stored.shape}, the header says {frame.size}")
    values = stored.astype(np.float64)
    if frame.inverted is not None:
        values = sum(frame.inverted) - values
    values = frame.slope * values + frame.intercept
    if frame.padding is not None:
        padded = (stored >= frame.padding[0]) & (stored <= frame.padding[1])
        values[padded] = AIR if frame.units == "HU" else 0.0
    return values.astype(np.float32)


def check_decodable(frame: Frame) -> None:
    """BadInput with the line to install where this transfer syntax needs a missing package."""
    from pydicom.pixels import get_decoder  # pyright: ignore[reportPrivateImportUsage]
    from pydicom.uid import UID

    if not UID(frame.syntax).is_compressed:
        return
    try:
        available = get_decoder(frame.syntax).is_available
    except NotImplementedError:
        raise BadInput(f"{_where(frame)}: {_syntax(frame)} is not read by pydicom") from None
    if not available:
        raise BadInput(f"{_where(frame)} is {_syntax(frame)}; to read it: {_remedy(frame)}")


def _decode(frame: Frame) -> np.ndarray:
    from pydicom.pixels import pixel_array  # pyright: ignore[reportPrivateImportUsage]
    from pydicom.uid import UID

    if not UID(frame.syntax).is_compressed:
        with dicom_reading(_where(frame)):
            return np.asarray(pixel_array(frame.path, index=frame.index, raw=True))
    check_decodable(frame)
    with dicom_reading(_where(frame)):
        _check_codestream(frame)
    # Decoders are C and C++ libraries, which a stream can hang or crash.
    path, pixels = str(frame.path.resolve()), math.prod(frame.size)
    bounds = {"seconds": 5 + pixels // 500_000, "memory": (2 << 30) + 64 * pixels}
    try:
        return ask("decode_dicom", _where(frame), **bounds, path=path, index=frame.index)
    except BadInput as error:
        # pydicom tries what is installed: 12-bit JPEG defeats Pillow, not libjpeg.
        hint = f"; it is {_syntax(frame)}, try: {_remedy(frame)}" if _remedy(frame) else ""
        raise BadInput(f"{error}{hint}") from None


def _syntax(frame: Frame) -> str:
    from pydicom.uid import UID

    return f"in transfer syntax {printable(UID(frame.syntax).name)}"


def _remedy(frame: Frame) -> str:
    packages = _PLUGINS.get(frame.syntax)
    return f"pip install {packages}" if packages else ""


def _check_codestream(frame: Frame) -> None:
    """The size inside the compressed stream, which is what a decoder allocates."""
    from pydicom.encaps import get_frame

    header = read_header(frame.path, ["Rows"])
    with Path(frame.path).open("rb") as file:
        # Encapsulated pixels are explicit little endian: tag, "OB", 0, length, then items.
        file.seek(header.offset + 12)
        stream = get_frame(file, frame.index, number_of_frames=frame.frames)
    size = stream_size(stream)
    if size is not None and size != frame.size:
        raise BadInput(f"{_where(frame)}: the stream is {size}, the header says {frame.size}")


def stream_size(stream: bytes) -> tuple[int, int] | None:
    """(rows, columns) in a JPEG, JPEG-LS or JPEG 2000 stream; None for others (RLE)."""
    start = stream[:4096].find(b"\xff\x4f\xff\x51")
    if start >= 0:
        if len(stream) < start + 24:
            return 0, 0
        right, bottom, left, top = struct.unpack_from(">4I", stream, start + 8)
        return bottom - top, right - left
    return _jpeg_size(stream) if stream[:2] == b"\xff\xd8" else None


def _jpeg_size(stream: bytes) -> tuple[int, int]:
    """The frame header: SOF0 to SOF15 of JPEG (not DHT, JPG, DAC), SOF55 of JPEG-LS."""
    frame_headers = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
    at = 2
    while at + 9 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker in frame_headers:
            rows, columns = struct.unpack_from(">2H", stream, at + 5)
            return rows, columns
        (length,) = struct.unpack_from(">H", stream, at + 2)
        at += 1 if marker == 0xFF else 2 + length
    return 0, 0


def _where(frame: Frame) -> str:
    return frame.path.name if frame.frames == 1 else f"{frame.path.name}, frame {frame.index}"
