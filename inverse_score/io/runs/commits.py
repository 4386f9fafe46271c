"""Hashes of files, commits that a full disk cannot spoil, and locks on a folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import BadInput, OutOfResources
from .atomic import atomic_path

_NO_SPACE = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
_NO_ACCESS = {errno.EROFS, errno.EACCES, errno.EPERM}


def sha256_file(path: str | Path) -> str:
    """Hex digest of a file's bytes, read in 4 MiB pieces."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """Hex digest of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def committing(path: str | Path) -> Iterator[Path]:
    """Yield a file to fill beside path; on success it is synced and renamed to path.

    OutOfResources where the disk is full or not writable, also when h5py says so in its own words.
    """
    path = Path(path)
    try:
        with atomic_path(path) as temporary:
            yield temporary
    except OutOfResources as error:
        # Said without what to do next, which a run can go on from.
        raise resources(error.__cause__, path) from error  # type: ignore[arg-type]
    except OSError as error:
        raise resources(error, path) from error


def commit_bytes(path: str | Path, content: bytes) -> None:
    with committing(path) as temporary:
        temporary.write_bytes(content)


def commit_json(path: str | Path, value: Any) -> None:
    commit_bytes(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def resources(error: OSError, path: Path) -> Exception:
    """A failed write as an error with the exit code of missing resources; others unchanged."""
    # h5py tells the errno only in the message of some of its errors.
    number = error.errno or next(
        (n for n in _NO_SPACE | _NO_ACCESS if f"errno = {n}," in str(error)), None
    )
    if number in _NO_SPACE:
        return OutOfResources(
            f"no room to write {path.name} ({os.strerror(number)}); "
            "free some space or choose another --out, then --resume"
        )
    if number in _NO_ACCESS:
        return OutOfResources(
            f"cannot write {path.name} ({os.strerror(number)}); choose another --out"
        )
    return error


@contextlib.contextmanager
def locked(folder: Path, name: str, patience: float = 0.0) -> Iterator[None]:
    """Hold folder/.name.lock; BadInput if a living process holds it for `patience` seconds more.

    A lock names host, process and the process's start, so that a reused process number is not
    mistaken for its first owner. Locks of processes that are gone are taken over; one from
    another host is never called stale.
    """
    path = folder / f".{name}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _take(path, time.monotonic() + patience)
    except OSError as error:
        raise resources(error, path) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def holder(path: Path) -> dict[str, Any] | None:
    """Who holds a lock file: its record, or None where there is none or its process is gone."""
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {"pid": "?", "host": "?"}
    if record.get("host") != socket.gethostname():
        return record
    return record if record.get("start") == _started(record.get("pid", -1)) else None


def _take(path: Path, until: float) -> None:
    me = {"pid": os.getpid(), "host": socket.gethostname(), "start": _started(os.getpid())}
    # Linked into place, so that a lock file is never seen half written.
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
    draft.write_text(json.dumps(me))
    try:
        while True:
            try:
                os.link(draft, path)
                return
            except FileExistsError:
                owner = holder(path)
            if owner is None:
                path.unlink(missing_ok=True)
            elif time.monotonic() >= until:
                raise BadInput(
                    f"{path.parent.name} is being written by process {owner.get('pid')} on "
                    f"{owner.get('host')}; wait for it, or delete {path.name} if it is gone"
                )
            else:
                time.sleep(0.1)
    finally:
        draft.unlink()


def _started(pid: int | str) -> str | None:
    """When a process of this host started (clock ticks since boot); None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return _alive(pid)
    # The command's name may hold spaces and brackets; fields are counted after its last bracket.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def _alive(pid: int | str) -> str | None:
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(int(pid), 0)
    except (OSError, ValueError):
        return None
    return "alive"
