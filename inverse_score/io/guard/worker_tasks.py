"""What the worker process does (see `worker`): short tasks, each under its own limits."""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
from pathlib import Path

import numpy as np

MAX_OBJECTS = 1000
_ROW = 64 << 20


def walk_hdf5(path: str) -> int:
    """Everything of the structure that readers may meet, and the first row of each dataset.

    What cannot be read is the readers' matter; here it matters that this ends. Returns how many
    objects there are, links to other places not counted.
    """
    import h5py

    with h5py.File(path, "r", locking="best-effort") as file:
        rest, seen = [file["/"]], 0
        while rest and seen < MAX_OBJECTS:
            found, seen = rest.pop(), seen + 1
            _try(_attributes, found)
            if isinstance(found, h5py.Dataset):
                _try(_first_row, found)
            elif isinstance(found, h5py.Group):
                rest += _try(_children, found) or []
        return seen


def hdf5_attribute(path: str, place: str, name: str) -> str:
    """A text of variable length, whose length libhdf5 believes before it looks."""
    import h5py

    with h5py.File(path, "r", locking="best-effort") as file:
        value = file[place].attrs[name]
        if isinstance(value, np.ndarray) and value.size == 1:
            value = value.reshape(-1)[0]
        if isinstance(value, bytes):
            return value.decode("utf-8")
        if isinstance(value, str):
            return str(value)
        raise TypeError(f"not a text but {type(value).__name__}")


def decode_dicom(path: str, index: int) -> np.ndarray:
    """One frame as stored, by whichever decoder is installed."""
    from pydicom.pixels import pixel_array  # pyright: ignore[reportPrivateImportUsage]

    return np.asarray(pixel_array(Path(path), index=index, raw=True))


def parse_twix(path: str) -> int:
    """Headers and protocol of every measurement; returns how many there are."""
    import twixtools  # pyright: ignore[reportMissingImports]

    return len(
        twixtools.read_twix(
            path, parse_pmu=False, parse_geometry=False, verbose=False, keep_syncdata=False
        )
    )


# Imported before the clock starts: it takes longer than most tasks.
PACKAGES = {"decode_dicom": "pydicom.pixels", "parse_twix": "twixtools"}
TASKS = {
    "walk_hdf5": walk_hdf5,
    "hdf5_attribute": hdf5_attribute,
    "decode_dicom": decode_dicom,
    "parse_twix": parse_twix,
}


def serve() -> None:
    """Answer requests, one JSON line each, until there are no more."""
    answers = os.fdopen(os.dup(1), "wb")
    # Whatever a library prints must not get between the answers.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        try:
            importlib.import_module(PACKAGES.get(request["task"], "h5py"))
            _limit(request["seconds"], request["memory"])
            value = TASKS[request["task"]](**request["given"])
        except Exception as error:
            # Only the kind: the text may quote the file, and a file may hold a name.
            _send(answers, {"error": type(error).__name__})
            continue
        if isinstance(value, np.ndarray):
            _send(answers, {"dtype": value.dtype.str, "shape": value.shape}, value)
        else:
            _send(answers, {"value": value})


def _send(answers, head: dict, values: np.ndarray | None = None) -> None:
    content = b"" if values is None else values.tobytes()
    answers.write(json.dumps({**head, "bytes": len(content)}).encode() + b"\n" + content)
    answers.flush()


def _limit(seconds: int, memory: int) -> None:
    """Processor time and memory beyond those in use; the system kills what goes beyond."""
    try:
        import resource
    except ImportError:  # Windows: only the time by the clock is bounded there
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: int(used.ru_utime + used.ru_stime) + 1 + seconds,
    }
    statistics = Path("/proc/self/statm")
    if statistics.exists():
        pages = int(statistics.read_text().split()[0])
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + memory
    for which, limit in limits.items():
        _, hard = resource.getrlimit(which)
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(which, (limit, hard))


def _try(function, found):
    try:
        return function(found)
    except Exception:
        return None


def _attributes(found) -> None:
    for name in list(found.attrs)[:MAX_OBJECTS]:
        _try(found.attrs.__getitem__, name)


def _children(group) -> list:
    import h5py

    names = [
        name for name in list(group)[:MAX_OBJECTS]
        if isinstance(group.get(name, getlink=True), h5py.HardLink)
    ]  # fmt: skip
    return [child for child in (_try(group.__getitem__, name) for name in names) if child]


def _first_row(data) -> None:
    if data.is_virtual or data.external or not data.size or data.dtype.hasobject:
        return
    data.id.get_storage_size()
    if data.chunks:
        data.id.get_num_chunks()
    rows = data.size // data.shape[0] if data.ndim else 1
    at_once = max(rows, math.prod(data.chunks or ()))
    if at_once * data.dtype.itemsize <= _ROW:
        data[0] if data.ndim else data[()]
