"""What a file is, from its first bytes, and in plain words when it is not what it should be."""

from __future__ import annotations

import struct
from pathlib import Path

from ...errors import BadInput

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
RA_MAGIC = struct.pack("<Q", 0x7961727261776172)
_IMAGES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"GIF8")


def sniff(path: str | Path) -> str:
    """One of hdf5, dicom, nifti, bart, npz, npy, twix, picture; else BadInput says what it is.

    A folder is "dicom". BART is known by name (.cfl, .hdr, or their stem) or by the .ra magic.
    """
    path = Path(path)
    if path.is_dir():
        return "dicom"
    if path.suffix in {".cfl", ".hdr"} and path.with_suffix(".cfl").exists():
        return "bart"
    if not path.exists() and path.with_name(f"{path.name}.cfl").exists():
        return "bart"
    head = first_bytes(path)
    for kind, fits in _KINDS.items():
        if fits(head):
            return kind
    if hdf5_start(path) is not None:
        return "hdf5"
    raise BadInput(f"{path.name}: {describe(head)}")


def first_bytes(path: Path, count: int = 10240) -> bytes:
    """The start of an existing, non-empty regular file."""
    if not path.exists():
        raise BadInput(f"{path.name}: no such file")
    if not path.is_file():
        raise BadInput(f"{path.name} is not a regular file")
    try:
        with path.open("rb") as file:
            head = file.read(count)
    except OSError as error:
        raise BadInput(f"{path.name} cannot be read: {error.strerror}") from None
    if not head:
        raise BadInput(f"{path.name} is empty (0 bytes)")
    return head


def describe(head: bytes) -> str:
    """Why these bytes are no scan, for people who saved a login page or a pointer instead."""
    text = head[:512].lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")) or b"<html" in text:
        return "this is a web page, not data: the download was redirected, perhaps to a login"
    if text.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer, not the data: run `git lfs pull`"
    if text.startswith(b"<?xml"):
        return "this is XML, perhaps the error message of a download server, not data"
    if head[:2] == b"\x1f\x8b":
        return "this is gzip: unpack it first (only .nii.gz is read packed)"
    if head[:2] == b"\x80\x02" or head[:2] in {b"\x80\x03", b"\x80\x04", b"\x80\x05"}:
        return "this is a Python pickle, which runs code when loaded and is never read"
    if not any(head):
        return "the file starts with zeros only: the copy or download did not finish"
    return "unknown format; HDF5, DICOM, NIfTI, BART, npz, npy and Siemens .dat are read"


def check_hdf5(path: Path) -> None:
    """BadInput unless this is an HDF5 file as long as its own header says."""
    head = first_bytes(path)
    start = hdf5_start(path)
    if start is None:
        kind = next((kind for kind, fits in _KINDS.items() if fits(head)), None)
        found = f"this is a {kind} file" if kind else describe(head)
        raise BadInput(f"{path.name} is not an HDF5 file: {found}")
    size, expected = path.stat().st_size, _hdf5_end(path, start)
    if expected is not None and size < expected:
        raise BadInput(f"{path.name} is cut off: it has {size} of {expected} bytes")


def hdf5_start(path: Path) -> int | None:
    """Where the HDF5 superblock lies: 0, 512, 1024, 2048, ... (behind a user block), or None."""
    size, start = path.stat().st_size, 0
    with path.open("rb") as file:
        while start + 8 <= size:
            file.seek(start)
            if file.read(8) == HDF5_SIGNATURE:
                return start
            start = max(512, 2 * start)
    return None


def _hdf5_end(path: Path, start: int) -> int | None:
    """The end-of-file address of the superblock (HDF5 file format, II.A), None if unusual."""
    with path.open("rb") as file:
        file.seek(start)
        block = file.read(64)
    if len(block) < 64:
        return start + 64
    version = block[8]
    offset = {0: 40, 1: 44, 2: 28, 3: 28}.get(version)
    size_of_offsets = block[13] if version < 2 else block[9]
    if offset is None or size_of_offsets != 8:
        return None
    (end,) = struct.unpack_from("<Q", block, offset)
    return end


def _is_nifti(head: bytes) -> bool:
    if head[:2] == b"\x1f\x8b":
        return _gzip_holds_nifti(head)
    return head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0"


def _gzip_holds_nifti(head: bytes) -> bool:
    import zlib

    try:
        start = zlib.decompressobj(31).decompress(head, 512)
    except zlib.error:
        return False
    return start[:2] != b"\x1f\x8b" and _is_nifti(start)


def _is_twix(head: bytes) -> bool:
    """VD/VE: 0 and a count of measurements up to 64; VB: the header's length, then few buffers."""
    if len(head) < 64:
        return False
    first, second = struct.unpack_from("<II", head)
    multi_raid = first < 10_000 and 0 < second <= 64 and any(head[8:64])
    vb = 10_000 <= first < 1 << 26 and 1 <= second <= 16 and head[8:14] == b"Config"
    return multi_raid or vb


def _is_dicom(head: bytes) -> bool:
    # Files without the preamble start at group 0008 (or 0002), little endian.
    bare = head[:4] in {b"\x08\x00\x05\x00", b"\x08\x00\x00\x00", b"\x08\x00\x08\x00"}
    return head[128:132] == b"DICM" or bare


_KINDS = {
    "hdf5": lambda head: head[:8] == HDF5_SIGNATURE,
    "dicom": _is_dicom,
    "nifti": _is_nifti,
    "npz": lambda head: head[:4] == b"PK\x03\x04",
    "npy": lambda head: head[:6] == b"\x93NUMPY",
    "bart": lambda head: head[:8] == RA_MAGIC,
    "picture": lambda head: head.startswith(_IMAGES),
    "twix": _is_twix,
}
