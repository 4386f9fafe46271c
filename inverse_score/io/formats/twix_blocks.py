"""The blocks of a Siemens file, followed from first to last before twixtools follows them.

A measurement is a protocol and then blocks, each with its length; a length of 0 leads nowhere, and
a measurement that claims more than the file has leads on for ever. Layout as in twixtools 0.24.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from ...errors import BadInput

_ACQEND, _SYNCDATA = 1 << 0, 1 << 5
_LENGTH = (1 << 25) - 1
_ENTRY, _ENTRIES, _BUFFERS = 152, 8, 64
# Per version: bytes of a readout's header, of each channel's, and where mask and sizes are.
_VB, _VD = (0, 128, 20), (192, 32, 40)


def check_blocks(path: Path) -> None:
    """BadInput unless every block of every measurement lies within the file."""
    size = path.stat().st_size
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        first, count = struct.unpack_from("<II", content)
        if first >= 10_000:
            return _check_measurement(content, 0, size, _VB, path.name)
        for number in range(count):
            if _ENTRIES + _ENTRY * (number + 1) > size:
                raise BadInput(f"{path.name} is cut off within its list of measurements")
            at, length = struct.unpack_from("<QQ", content, _ENTRIES + _ENTRY * number + 8)
            length = length or (size - at if count == 1 else 0)
            if at + 8 > size or at + length > size:
                raise BadInput(
                    f"{path.name} is cut off: measurement {number} needs {at + length} bytes, the "
                    f"file has {size}"
                )
            _check_measurement(content, at, at + length, _VD, path.name)
    return None


def _check_measurement(content, at: int, end: int, version, name: str) -> None:
    head, channel, mask_at = version
    smallest = max(head, channel)
    protocol, buffers = struct.unpack_from("<II", content, at)
    if at + protocol > end or buffers > _BUFFERS:
        raise BadInput(
            f"{name} is damaged: a protocol of {protocol} bytes in {buffers} parts, {end - at} "
            "bytes are there"
        )
    at += protocol
    while at + 128 < end:
        if at + smallest > end:
            raise BadInput(f"{name} is cut off: a readout starts {end - at} bytes before the end")
        flags, samples, channels = struct.unpack_from("<QHH", content, at + mask_at)
        length = head + channels * (channel + 8 * samples)
        if flags & (_ACQEND | _SYNCDATA):
            (length,) = struct.unpack_from("<I", content, at)
            length &= _LENGTH
        if flags & _ACQEND and not flags & _SYNCDATA:
            return
        if length < smallest or at + length > end:
            raise BadInput(
                f"{name} is damaged or cut: a block of {length} bytes at {at}, with {end - at} left"
            )
        at += length
