"""HDF5 values of variable length, checked byte by byte before libhdf5 believes them.

Such a value is a descriptor (length, address of a global heap, index in it; HDF5 file format
VIII.C.2 and III.E). libhdf5 (2.0 and before) allocates the length that a descriptor claims, up to
gigabytes, copies the heap's object into it before it compares the two sizes, and follows the
objects of a heap by their sizes, so that a free object of size 0 makes it loop for ever, out of
reach of Ctrl-C. Here every descriptor must name an object of exactly its size.
"""

from __future__ import annotations

import math
import mmap
import struct
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from ...errors import BadInput

_SIGNATURE = b"GCOL\x01\0\0\0"
_HEADER = 16
# On disk: length (4 bytes), address (8), index (4), whatever it is in memory.
_DESCRIPTOR = 16
_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3
Heaps = dict[int, dict[int, int]]


def check_heaps(path: Path) -> None:
    """BadInput where a global heap of the file does not lead from its start to its end."""
    stat = path.stat()
    _heaps(path, stat.st_size, stat.st_mtime_ns)


def check_references(data, path: Path) -> None:
    """BadInput where a value of variable length is not an object of its size in a heap.

    data: an h5py dataset whose type has members of variable length.
    """
    stat = path.stat()
    fields, itemsize = _disk_layout(data.id.get_type(), path.name)
    heaps, base = _heaps(path, stat.st_size, stat.st_mtime_ns), _userblock(data)
    for block in _stored(data, path, itemsize):
        rows = block[: len(block) // itemsize * itemsize].reshape(-1, itemsize)
        for offset, width in fields:
            _check_descriptors(rows[:, offset : offset + _DESCRIPTOR], width, heaps, base, path)


def _check_descriptors(rows: np.ndarray, width: int, heaps: Heaps, base: int, path: Path) -> None:
    """rows (n, 16) bytes: length x width bytes must be the size of the object named."""
    packed = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])
    for length, address, index in np.ascontiguousarray(rows).view(packed).reshape(-1).tolist():
        if length == 0:
            continue
        there = heaps.get(address + base, {}).get(index)
        if there != length * width:
            found = "which is not there" if there is None else f"which has {there}"
            raise BadInput(
                f"{path.name} is damaged: {length * width} bytes are claimed of a value of "
                f"variable length, {found}"
            )


def _disk_layout(kind, name: str) -> tuple[list[tuple[int, int]], int]:
    """((offset, bytes an element) of each descriptor in a value, size of the value) on disk."""
    import h5py

    if isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str():
        return [(0, 1)], _DESCRIPTOR
    if isinstance(kind, h5py.h5t.TypeVlenID):
        element = kind.get_super()
        number = isinstance(element, (h5py.h5t.TypeIntegerID, h5py.h5t.TypeFloatID))
        # Neither a sequence nor a text: libhdf5 2.0 crashes on the first value.
        if number and kind.encode()[3] & 0x0F == 0:
            return [(0, element.get_size())], _DESCRIPTOR
        raise BadInput(f"{name}: values of variable length must be text or numbers")
    if isinstance(kind, h5py.h5t.TypeReferenceID):
        raise BadInput(f"{name}: references to other objects are not followed")
    if not isinstance(kind, h5py.h5t.TypeCompoundID):
        if kind.detect_class(h5py.h5t.VLEN) or kind.detect_class(h5py.h5t.REFERENCE):
            raise BadInput(f"{name}: arrays of values of variable length are not read")
        return [], kind.get_size()
    return _compound_layout(kind, name)


def _compound_layout(kind, name: str) -> tuple[list[tuple[int, int]], int]:
    members = sorted(
        (kind.get_member_offset(k), kind.get_member_type(k)) for k in range(kind.get_nmembers())
    )
    fields, grown = [], 0
    for offset, member in members:
        inner, size = _disk_layout(member, name)
        fields += [(offset + grown + place, width) for place, width in inner]
        # In memory a text is a pointer, on disk a descriptor: what follows lies further on.
        grown += size - member.get_size()
    return fields, kind.get_size() + grown


def _stored(data, path: Path, itemsize: int) -> Iterator[np.ndarray]:
    """The bytes of a dataset as the file has them, uint8, chunk by chunk."""
    size = data.size * itemsize
    if data.chunks:
        chunk = math.prod(data.chunks) * itemsize
        filters = data.id.get_create_plist()
        kinds = [filters.get_filter(k)[0] for k in range(filters.get_nfilters())]
        for k in range(data.id.get_num_chunks()):
            mask, raw = data.id.read_direct_chunk(data.id.get_chunk_info(k).chunk_offset)
            yield _unfiltered(raw, kinds, mask, chunk, itemsize, path)
        return
    offset = data.id.get_offset()
    if offset is None or offset + size > path.stat().st_size:
        raise BadInput(f"{path.name}: values of variable length lie outside of the file's data")
    with path.open("rb") as file:
        file.seek(offset)
        yield np.frombuffer(file.read(size), np.uint8)


def _unfiltered(raw, kinds: list[int], mask: int, size: int, itemsize: int, path: Path):
    """One chunk with its filters undone, last first, and never larger than it is declared."""
    if set(kinds) - {_DEFLATE, _SHUFFLE, _FLETCHER32}:
        raise BadInput(f"{path.name}: values of variable length are read plain or by gzip")
    for place, kind in reversed(list(enumerate(kinds))):
        if mask >> place & 1:
            continue
        if kind == _FLETCHER32:
            raw = raw[:-4]
        elif kind == _DEFLATE:
            raw = zlib.decompressobj().decompress(raw, size + 4)
        else:
            whole = len(raw) // itemsize * itemsize
            turned = np.frombuffer(raw[:whole], np.uint8).reshape(itemsize, -1).T
            raw = turned.tobytes() + raw[whole:]
    if len(raw) != size:
        raise BadInput(f"{path.name} is damaged: a chunk of {size} bytes holds {len(raw)}")
    return np.frombuffer(raw, np.uint8)


def _userblock(data) -> int:
    return data.file.id.get_create_plist().get_userblock()


@lru_cache(maxsize=4)
def _heaps(path: Path, size: int, _modified: int) -> Heaps:
    """{address: {index: bytes of the object}} of all global heaps in the file."""
    found: Heaps = {}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at = content.find(_SIGNATURE)
        while at >= 0:
            objects = _objects(content, at, size)
            if objects is None:
                raise BadInput(f"{path.name} is damaged: its heap at byte {at} does not end")
            found[at] = objects
            at = content.find(_SIGNATURE, at + 8)
    return found


def _objects(content: mmap.mmap, at: int, size: int) -> dict[int, int] | None:
    """Objects of (index, references, reserved, size), padded to 8; None where they lead nowhere."""
    if at + _HEADER > size:
        return {}
    (length,) = struct.unpack_from("<Q", content, at + 8)
    end, place, objects = at + length, at + _HEADER, {}
    if end > size:
        # libhdf5 finds this out by itself.
        return {}
    while place + _HEADER <= end:
        index, _, _, inner = struct.unpack_from("<HHLQ", content, place)
        # A free object (index 0) counts its own header, a used one does not.
        step = inner if index == 0 else _HEADER + (inner + 7) // 8 * 8
        if step < _HEADER or place + step > end:
            return None
        if index:
            objects[index] = inner
        place += step
    return objects
