"""Names and words from files, made safe to print, to put into HTML and to use as file names."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from ..errors import BadInput

# Devices of Windows: a file of this name there is not a file.
_DEVICES = {"CON", "PRN", "AUX", "NUL"} | {f"{d}{n}" for d in ("COM", "LPT") for n in range(1, 10)}


def printable(text: object, limit: int = 200) -> str:
    """One line without control characters (terminal escapes) or invisible direction marks."""
    kept = (
        " " if char.isspace() else char
        for char in str(text)[: 4 * limit]
        if char.isspace() or unicodedata.category(char)[0] != "C"
    )
    line = " ".join("".join(kept).split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def safe_name(text: object, limit: int = 100) -> str:
    """A file name of letters, digits and ._- only: no folder, no device, no hidden file."""
    name = unicodedata.normalize("NFKD", str(text)[: 4 * limit]).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:limit].strip("._-")
    if name.split(".")[0].upper() in _DEVICES:
        name = f"_{name}"
    return name or "unnamed"


def inside(folder: str | Path, name: str) -> Path:
    """folder / name, refused where it would lie outside the folder (links resolved)."""
    folder = Path(folder)
    if "\0" in name or not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise BadInput(f"an output must stay in its folder, got the name {printable(name)!r}")
    return folder / name


def duration(seconds: float) -> str:
    """12 s, 3 min, 2 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
