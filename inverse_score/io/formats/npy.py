"""numpy's .npz and .npy, never unpickled, declared sizes compared with the bytes that are there."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ...errors import BadInput
from ..guard import LIMITS, Limits, check_size, check_slice, reading


def npz_names(path: str | Path) -> list[str]:
    """Names of the arrays in an .npz, without reading any."""
    path = Path(path)
    with reading(path.name), zipfile.ZipFile(path) as archive:
        return sorted(name.removesuffix(".npy") for name in archive.namelist())


def npz_array(path: str | Path, key: str | None, limits: Limits = LIMITS) -> np.ndarray:
    """Array `key` of an .npz (its only one for None), never unpickled, sizes checked first."""
    path = Path(path)
    with reading(path.name), zipfile.ZipFile(path) as archive:
        names = [info.filename.removesuffix(".npy") for info in archive.infolist()]
        if key is None and len(names) != 1:
            raise BadInput(f"{path.name} holds {sorted(names)[:20]}: name one (--key)")
        key = names[0] if key is None else key
        if key not in names:
            raise BadInput(f"{path.name} has no array {key!r}; it has {sorted(names)[:20]}")
        info = archive.infolist()[names.index(key)]
        what = f"{path.name}, array {key!r}"
        check_size(what, info.file_size, info.compress_size, limits)
        check_slice(what, info.file_size, limits)
        with archive.open(info) as member:
            shape, _, dtype = npy_header(member, what)
            _check_npy(what, shape, dtype, info.file_size)
        with archive.open(info) as member:
            return np.lib.format.read_array(member, allow_pickle=False)


def npy_array(path: str | Path, limits: Limits = LIMITS) -> np.ndarray:
    """A .npy file as a read-only memory map, its declared size compared with the file's."""
    path = Path(path)
    with reading(path.name):
        with path.open("rb") as file:
            shape, _, dtype = npy_header(file, path.name)
        _check_npy(path.name, shape, dtype, path.stat().st_size)
        check_size(path.name, math.prod(shape) * dtype.itemsize, path.stat().st_size, limits)
        return np.load(path, mmap_mode="r", allow_pickle=False)


def npy_header(file, what: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, column-major, dtype) of a .npy stream; objects, which are pickles, are refused."""
    readers: dict[tuple[int, int], Callable] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise BadInput(f"{what} has .npy version {version}; 1.0 and 2.0 are read")
    shape, fortran, dtype = readers[version](file)
    if dtype.hasobject:
        raise BadInput(f"{what} holds Python objects, which are pickles and never loaded")
    return shape, fortran, dtype


def _check_npy(what: str, shape: tuple[int, ...], dtype: np.dtype, there: int) -> None:
    declared = math.prod(shape) * dtype.itemsize
    if min(shape, default=1) < 1 or declared > there:
        raise BadInput(f"{what} declares shape {shape} of {dtype} but holds {there} bytes")
