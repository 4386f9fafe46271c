"""The one guard in front of every reader: what a file may be before any of it is believed.

A file from elsewhere can lie. HDF5 can name other files of the disk (external links, external
storage, virtual sources, whose missing parts read as zeros) or declare terabytes in a kilobyte;
archives inflate a thousandfold; pickles run code. Nothing here trusts a declared size before it
has compared it with the bytes that are there. Messages name files by their base name only.
"""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import BadInput
from .chunks import check_chunks
from .heaps import check_heaps, check_references
from .sniff import check_hdf5
from .worker import ask

if TYPE_CHECKING:
    import h5py

GiB = 1 << 30


@dataclass(frozen=True)
class Limits:
    """Largest sizes that are read, in bytes once inflated.

    ratio bounds inflated over stored size: k-space with 7 of 8 columns zero compresses below 20,
    a bomb of zeros about 1000. Arrays below `small` cannot hurt and are exempt.
    """

    array: int = 64 * GiB
    slice: int = 2 * GiB
    ratio: int = 200
    small: int = 16 << 20
    text: int = 8 << 20


LIMITS = Limits()


def check_size(what: str, size: int, stored: int, limits: Limits = LIMITS) -> None:
    """Refuses an array of `size` bytes kept in `stored` bytes, before anything is allocated."""
    if size > limits.array:
        raise BadInput(
            f"{what} declares {size / GiB:.3g} GiB; the limit is {limits.array / GiB:.3g} GiB"
        )
    if size > limits.small and size > limits.ratio * max(stored, 1):
        raise BadInput(
            f"{what} declares {size} bytes but stores {stored}: more than {limits.ratio} times "
            "compressed, which no scan is; the file is damaged or hostile"
        )


@contextmanager
def open_hdf5(path: str | Path) -> Iterator[h5py.File]:
    """The HDF5 file, read-only and never created; BadInput where it cannot be opened."""
    import h5py

    path = Path(path)
    check_hdf5(path)
    stat = path.stat()
    _survives(path, stat.st_size, stat.st_mtime_ns)
    try:
        # Cluster file systems without locks must not forbid reading.
        file = h5py.File(path, "r", locking="best-effort")
    except (OSError, RuntimeError, ValueError) as error:
        raise BadInput(f"{path.name}: HDF5 cannot open it ({_first_line(error)})") from None
    with file:
        yield file


@lru_cache(maxsize=4096)
def _survives(path: Path, _size: int, _modified: int) -> None:
    """BadInput where libhdf5 hangs or dies on the structure of a file, in a process of its own."""
    ask("walk_hdf5", path.name, path=str(path.resolve()))


def group(file: h5py.File, key: str) -> h5py.Group:
    """The group at `key` of the file's root."""
    import h5py

    found = file[key]
    if not isinstance(found, h5py.Group):
        raise BadInput(f"{Path(file.filename).name}: {key!r} is not a group")
    return found


def dataset(
    file: h5py.File | h5py.Group,
    key: str,
    *,
    ndim: int | tuple[int, ...] | None = None,
    kinds: str = "iufcbV",
    limits: Limits = LIMITS,
) -> h5py.Dataset:
    """The dataset `key`, whose bytes lie in this very file and whose size is plausible.

    ndim: allowed numbers of axes; kinds: allowed numpy dtype kinds ("V" is a compound, "O" text
    of variable length). Links are looked at, not followed, on every level of the path.
    """
    import h5py

    what = f"{Path(file.file.filename).name}, dataset {key!r}"
    found = _resolve(file, key, what)
    if not isinstance(found, h5py.Dataset):
        raise BadInput(f"{what} is a group, not a dataset")
    with reading(what):
        _check_storage(found, what)
        allowed = (ndim,) if isinstance(ndim, int) else ndim
        if allowed is not None and found.ndim not in allowed:
            raise BadInput(f"{what} must have {allowed} axes; its shape is {found.shape}")
        if found.dtype.kind not in kinds:
            raise BadInput(f"{what} must hold numbers of kind {kinds!r}, got dtype {found.dtype}")
        _check_extent(found, what, limits)
        if found.dtype.hasobject:
            check_references(found, Path(file.file.filename))
    return found


def has(file: h5py.File | h5py.Group, key: str) -> bool:
    """Whether the file lists this key; what it leads to is `dataset`'s matter."""
    with reading(Path(file.file.filename).name):
        return file.get(key, getlink=True) is not None if "/" not in key else _listed(file, key)


def read_slice(data: h5py.Dataset, k: int) -> np.ndarray:
    """data[k]; a chunk that cannot be read is a BadInput that names the slice."""
    with reading(f"{Path(data.file.filename).name}, dataset {data.name!r}, slice {k}"):
        return data[k]


def read_array(data: h5py.Dataset, limits: Limits = LIMITS) -> np.ndarray:
    """All of a dataset that fits the limit of one slice."""
    what = f"{Path(data.file.filename).name}, dataset {data.name!r}"
    check_slice(what, data.size * data.dtype.itemsize, limits)
    with reading(what):
        return np.asarray(data[()])


def read_text(file: h5py.File | h5py.Group, key: str, limits: Limits = LIMITS) -> str:
    """A string dataset, scalar or of one entry, written as bytes or as str."""
    data = dataset(file, key, ndim=(0, 1), kinds="OSU", limits=limits)
    what = f"{Path(data.file.filename).name}, dataset {key!r}"
    if data.size != 1:
        raise BadInput(f"{what} must hold one string, its shape is {data.shape}")
    with reading(what):
        text = np.asarray(data[()]).reshape(-1)[0]
    return as_text(text, what, limits)


def attribute(file: h5py.Group | h5py.Dataset, name: str, limits: Limits = LIMITS) -> object:
    """A scalar or short attribute: str, int, float, bool or a small array; None where absent."""
    what = f"{Path(file.file.filename).name}, attribute {name!r}"
    with reading(what):
        if name not in file.attrs:
            return None
        entry = file.attrs.get_id(name)
        size = math.prod(entry.shape or ()) * entry.dtype.itemsize
        if size > limits.text:
            raise BadInput(f"{what} declares {size} bytes; the limit is {limits.text}")
        if entry.dtype.hasobject:
            path = Path(file.file.filename)
            check_heaps(path)
            value = ask("hdf5_attribute", what, path=str(path), place=file.name, name=name)
        else:
            value = file.attrs[name]
    if isinstance(value, (bytes, str)):
        return as_text(value, what, limits)
    if isinstance(value, np.generic) and value.dtype.kind in "biufc":
        return value.item()
    return value


def as_text(text: object, what: str, limits: Limits = LIMITS) -> str:
    """str of bytes or str, bounded; anything else is refused."""
    if isinstance(text, bytes):
        if len(text) > limits.text:
            raise BadInput(f"{what} has {len(text)} bytes of text; the limit is {limits.text}")
        try:
            return text.rstrip(b"\0").decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadInput(f"{what} is not UTF-8 text ({error.reason})") from None
    if isinstance(text, str):
        if len(text) > limits.text:
            raise BadInput(f"{what} has {len(text)} characters; the limit is {limits.text}")
        return text
    raise BadInput(f"{what} must be text, got {type(text).__name__}")


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turns the many exceptions of a damaged file into one BadInput that says where."""
    try:
        yield
    except BadInput:
        raise
    except (
        OSError,
        RuntimeError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        SyntaxError,
        EOFError,
        struct.error,
        tokenize.TokenError,
        zlib.error,
        zipfile.BadZipFile,
    ) as error:
        raise BadInput(f"{what} cannot be read: damaged or cut ({_first_line(error)})") from None


def _resolve(file: h5py.Group, key: str, what: str, hops: int = 8):
    """The object at `key` by hard links, and at most `hops` soft links, within this file."""
    import h5py

    here: h5py.Group | h5py.Dataset | h5py.Datatype = file
    parts = [part for part in key.split("/") if part]
    while parts:
        part = parts.pop(0)
        link = None
        if isinstance(here, h5py.Group):
            with reading(what):
                link = here.get(part, getlink=True)
        if link is None or not isinstance(here, h5py.Group):
            raise BadInput(f"{what} does not exist; {_listing(here)}")
        if isinstance(link, h5py.ExternalLink):
            raise BadInput(f"{what} is a link to another file, which is not followed")
        if isinstance(link, h5py.SoftLink):
            hops -= 1
            if hops < 0:
                raise BadInput(f"{what} is a loop of links")
            here = here.file["/"] if link.path.startswith("/") else here
            parts = [p for p in link.path.split("/") if p] + parts
            continue
        with reading(what):
            here = here[part]
    return here


def _listed(file: h5py.Group, key: str) -> bool:
    try:
        _resolve(file, key, key)
    except BadInput:
        return False
    return True


def _listing(group) -> str:
    try:
        return f"the file has {sorted(group)[:20]} there"
    except (AttributeError, TypeError, RuntimeError, OSError, ValueError):
        return "its parent is not a readable group"


def _check_storage(data: h5py.Dataset, what: str) -> None:
    if data.is_virtual:
        raise BadInput(
            f"{what} is virtual: its values lie in other files, and read as zeros where those are "
            "missing; copy it into one file (h5repack)"
        )
    if data.external:
        raise BadInput(f"{what} keeps its values in another file, which is not followed")
    if data.shape is None or data.size == 0:
        raise BadInput(f"{what} is empty; its shape is {data.shape}")


def _check_extent(data: h5py.Dataset, what: str, limits: Limits) -> None:
    size, stored = data.size * data.dtype.itemsize, data.id.get_storage_size()
    check_size(what, size, stored, limits)
    if stored == 0:
        raise BadInput(f"{what} was never completely written: unwritten parts would read as zeros")
    if data.chunks:
        check_chunks(data, what)
        check_slice(f"{what}, one chunk", math.prod(data.chunks) * data.dtype.itemsize, limits)
    if data.ndim:
        check_slice(f"{what}, one slice", size // data.shape[0], limits)


def check_slice(what: str, size: int, limits: Limits = LIMITS) -> None:
    """Refuses what would be read at once beyond the limit of a slice."""
    if size > limits.slice:
        raise BadInput(
            f"{what} declares {size / GiB:.3g} GiB; the limit for what is read at once is "
            f"{limits.slice / GiB:.3g} GiB"
        )


def _first_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."
