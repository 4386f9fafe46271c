"""DICOM series (MR, CT) as scans: grouped, ordered by position, in physical values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...errors import BadInput
from ..guard.sniff import sniff
from ..scan import Scan
from .dicom_frames import Frame, frames_of
from .dicom_pixels import check_decodable, read_frame
from .geometry import plane_affine, slice_step

MAX_FILES = 100_000


def read_dicom(path: str | Path, series: str | int | None = None, nan: str = "refuse") -> Scan:
    """The series in a folder, or in one file, as an image Scan; CT in HU.

    series: a number of `list_series` (from 1) or a SeriesInstanceUID, needed where the folder
    holds several image series; localizers and secondary captures count only when asked for.
    """
    files = _files(Path(path))
    groups, notes = _grouped(files)
    if not groups:
        raise BadInput(f"{Path(path).name} holds no DICOM image; {'; '.join(notes)}")
    frames = _chosen(Path(path), groups, series)
    check_decodable(frames[0])
    return replace(_scan(frames, notes), nan=nan)  # type: ignore[arg-type]


def read_series(path: str | Path) -> list[Scan]:
    """Every image series of a folder that forms a volume, for training data."""
    groups, notes = _grouped(_files(Path(path)))
    return [_scan(frames, notes) for frames in groups if not frames[0].derived]


def list_series(path: str | Path) -> list[str]:
    """One line a series, in the order of their numbers, without patient data."""
    return [
        _line(number, frames) for number, frames in enumerate(_grouped(_files(Path(path)))[0], 1)
    ]


@dataclass(frozen=True)
class _Frames:
    """Slice k is frame k of the ordered list; picklable."""

    frames: tuple[Frame, ...]

    def __call__(self, k: int) -> np.ndarray:
        return read_frame(self.frames[k])


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = []
    for item in sorted(path.rglob("*")):
        # A link could lead anywhere, and round in circles.
        if item.is_file() and not item.is_symlink() and not item.name.startswith("."):
            found.append(item)
        if len(found) > MAX_FILES:
            raise BadInput(f"{path.name} holds more than {MAX_FILES} files; name one series")
    return found


def _grouped(files: Iterable[Path]) -> tuple[list[list[Frame]], list[str]]:
    """Frames by what makes a volume, groups in a fixed order, and a count of what was skipped."""
    files = list(files)
    groups: dict[tuple, list[Frame]] = {}
    skipped: Counter[str] = Counter()
    for path in files:
        if len(files) > 1 and not _is_dicom(path):
            skipped["not DICOM"] += 1
            continue
        frames = frames_of(path)
        if not frames:
            skipped["DICOM without image"] += 1
        for frame in frames:
            groups.setdefault(frame.group, []).append(frame)
    notes = [f"{count} files skipped: {reason}" for reason, count in sorted(skipped.items())]
    return [groups[key] for key in sorted(groups, key=repr)], notes


def _is_dicom(path: Path) -> bool:
    try:
        return sniff(path) == "dicom"
    except BadInput:
        return False


def _chosen(path: Path, groups: list[list[Frame]], series: str | int | None) -> list[Frame]:
    listing = "; ".join(_line(number, frames) for number, frames in enumerate(groups, 1))
    if series is not None:
        by_uid = [frames for frames in groups if frames[0].series == str(series)]
        if len(by_uid) == 1:
            return by_uid[0]
        if str(series).isdecimal() and 1 <= int(series) <= len(groups):
            return groups[int(series) - 1]
        raise BadInput(f"{path.name} has no single series {series!r} (--key); it has {listing}")
    acquired = [frames for frames in groups if not frames[0].derived] or groups
    if len(acquired) > 1:
        raise BadInput(f"{path.name} holds several series, choose one (--key): {listing}")
    return acquired[0]


def _line(number: int, frames: list[Frame]) -> str:
    first, facts = frames[0], dict(frames[0].facts)
    words = [f"{number}: {first.modality or 'image'}", f"{len(frames)} slices"]
    words.append(f"{first.size[0]} x {first.size[1]}")
    words += [f"TE {facts['EchoTime']}"] if "EchoTime" in facts else []
    words += [f"kernel {facts['ConvolutionKernel']}"] if "ConvolutionKernel" in facts else []
    words += ["derived or localizer"] if first.derived else []
    return ", ".join(words)


def _scan(frames: list[Frame], notes: list[str]) -> Scan:
    ordered, affine = _ordered(frames)
    first = ordered[0]
    notes = list(notes)
    if first.derived:
        notes.append("a derived image, not the scanner's own")
    if dict(first.facts).get("LossyImageCompression") == "01":
        notes.append("the image was compressed with loss")
    return Scan(
        kind="image",
        shape=(len(ordered), *first.size),
        read=_Frames(tuple(ordered)),
        files=tuple(dict.fromkeys(frame.path for frame in ordered)),
        format="dicom",
        units=first.units,
        affine=affine,
        facts=dict(first.facts),
        notes=tuple(notes),
    )


def _ordered(frames: list[Frame]) -> tuple[list[Frame], np.ndarray | None]:
    """Frames along the slice normal, and their affine in RAS+; never by name or number."""
    what = f"{frames[0].path.name} and {len(frames) - 1} more slices"
    complete = all(f.position and f.orientation and f.spacing for f in frames)
    if not complete and len(frames) == 1:
        return frames, None
    spacing = frames[0].spacing
    if not complete or spacing is None:
        raise BadInput(
            f"{what}: ImagePositionPatient, ImageOrientationPatient or PixelSpacing is missing, so "
            "the slices cannot be put in order; read single files"
        )
    normal = frames[0].normal
    frames = sorted(frames, key=lambda frame: float(normal @ np.array(frame.position)))
    positions = np.array([frame.position for frame in frames])
    step = slice_step(what, positions, normal, frames[0].thickness)
    if not np.allclose(np.array([frame.spacing for frame in frames]), spacing, rtol=1e-3):
        raise BadInput(f"{what}: PixelSpacing differs between slices")
    along, down = np.array(frames[0].orientation).reshape(2, 3)
    return frames, plane_affine(along, down, spacing, step, positions[0])
