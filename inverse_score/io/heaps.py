"""HDF5 global heaps, where values of variable length lie, checked before libhdf5 walks them.

libhdf5 (2.0 and before) follows the objects of a heap by their sizes, and a free object of size 0
makes it loop for ever, out of reach of Ctrl-C.
"""

from __future__ import annotations

import mmap
import struct
from functools import lru_cache
from pathlib import Path

from ..errors import BadInput

_SIGNATURE = b"GCOL\x01\0\0\0"
_HEADER = 16


def check_heaps(path: Path) -> None:
    """BadInput where a global heap of the file does not lead from its start to its end."""
    stat = path.stat()
    _check(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _check(path: Path, size: int, _modified: int) -> None:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at = content.find(_SIGNATURE)
        while at >= 0:
            if not _walks(content, at, size):
                raise BadInput(f"{path.name} is damaged: its heap at byte {at} does not end")
            at = content.find(_SIGNATURE, at + 8)


def _walks(content: mmap.mmap, at: int, size: int) -> bool:
    """HDF5 file format III.E: objects of (index, references, reserved, size), padded to 8."""
    if at + _HEADER > size:
        return True
    (length,) = struct.unpack_from("<Q", content, at + 8)
    end, place = at + length, at + _HEADER
    if end > size:
        # libhdf5 finds this out by itself.
        return True
    while place + _HEADER <= end:
        index, _, _, inner = struct.unpack_from("<HHLQ", content, place)
        # A free object (index 0) counts its own header, a used one does not.
        step = inner if index == 0 else _HEADER + (inner + 7) // 8 * 8
        if step < _HEADER or place + step > end:
            return False
        place += step
    return True
