"""The chunks of an HDF5 dataset, compared with the bytes of the file before libhdf5 reads them.

libhdf5 (2.0 and before) takes a chunk's address and stored size from its index. It crashes on a
chunk of 0 bytes that should end with a checksum, and inflates a chunk to whatever size it has,
not to the size that the dataset declares.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path

from ...errors import BadInput

_DEFLATE = 1
_CHECKSUM = 4
# Deflate stores what it cannot compress with 5 bytes a block of 16 kB or more, other filters with
# a short header; inflated it is at most 1032 times as large.
_OVERHEAD, _INFLATES = 1.01, 1032
_HARMLESS = 1 << 30
_PIECE = 1 << 20


def check_chunks(data, what: str) -> None:
    """BadInput unless every chunk of an h5py dataset is written, in the file, and of its size."""
    declared = math.prod(data.chunks) * data.dtype.itemsize
    if data.dtype.hasobject:
        # Kept as descriptors of 16 bytes, which may be more than in memory.
        declared *= 16
    plist = data.id.get_create_plist()
    filters = [plist.get_filter(k)[0] for k in range(plist.get_nfilters())]
    there, found = Path(data.file.filename).stat().st_size, []
    data.id.chunk_iter(found.append)
    expected = math.prod(-(-n // c) for n, c in zip(data.shape, data.chunks, strict=True))
    if len(found) < expected:
        raise BadInput(f"{what} was never completely written: unwritten parts would read as zeros")
    for chunk in found:
        whole = 0 < chunk.size <= _OVERHEAD * declared + 1024
        if not filters and not data.dtype.hasobject:
            whole = chunk.size == declared
        if not whole or chunk.byte_offset is None or chunk.byte_offset + chunk.size > there:
            raise BadInput(
                f"{what}: a chunk of {declared} bytes is kept in {chunk.size} bytes at "
                f"{chunk.byte_offset} of {there}; the file is damaged or hostile"
            )
        if _DEFLATE in filters and chunk.size * _INFLATES > _HARMLESS:
            _check_inflated(data, chunk, declared, what)


def _check_inflated(data, chunk, declared: int, what: str) -> None:
    """BadInput where a chunk inflates to more than it is declared, found out piece by piece."""
    _, stored = data.id.read_direct_chunk(chunk.chunk_offset)
    stream, size, rest = zlib.decompressobj(), 0, stored
    while rest and not stream.eof:
        try:
            size += len(stream.decompress(rest, _PIECE))
        except zlib.error:
            # Not the last filter, or damaged: HDF5 says so.
            return
        if size > declared + _CHECKSUM:
            raise BadInput(f"{what}: a chunk of {declared} bytes inflates to more: it is hostile")
        rest = stream.unconsumed_tail
