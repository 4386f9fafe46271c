"""The options of a reconstruction: one table, a row a field of five frozen groups.

The command line, YAML files and a run's manifest derive from it, and so does what is refused: an
option that does nothing for the operator at hand. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MRI, CT, OWN = "mri", "ct", "package.module:factory"
SCANS = (MRI, CT, OWN)
PICTURES = ("inpaint", "colorize", "deblur", "super-resolution")
CLASS = "class"
OPERATORS = (*SCANS, *PICTURES, CLASS)


@dataclass(frozen=True)
class Option:
    """One row. type: as Python writes it; only: the operators for which it does something;
    first: among those that everybody needs; place: section and key in YAML, one word at its top,
    "" where a file may not set it; result: whether the run's bytes depend on it as it is given."""

    name: str
    type: Any
    default: Any
    help: str
    group: str
    only: tuple[str, ...]
    first: bool
    place: str
    result: bool
    flags: tuple[str, ...]

    @property
    def flag(self) -> str:
        """As it is typed: --noise-std."""
        return self.flags[0] if self.flags else "--" + self.name.replace("_", "-")

    @property
    def section(self) -> str:
        return self.place.rpartition(".")[0]

    @property
    def key(self) -> str:
        return self.place.rpartition(".")[2]


def option(
    default: Any,
    help: str,
    *,
    only: tuple[str, ...] = OPERATORS,
    first: bool = False,
    place: str | None = None,
    result: bool = False,
    flags: tuple[str, ...] = (),
) -> Any:
    """A field of a group, with the rest of its row; place: default the group's section."""
    row = {"help": help, "only": only, "first": first, "place": place, "result": result}
    return dataclasses.field(default=default, metadata={**row, "flags": flags})


@dataclass(frozen=True, kw_only=True)
class ScanOptions:
    """What was measured, and how."""

    operator: str = option(
        MRI,
        "mri, ct; for pictures inpaint, colorize, deblur, super-resolution or class; or "
        "package.module:factory, whose factory(path) returns a LinearOperator (this runs its "
        "code).",
        first=True,
        place="recipe",
        result=True,
    )
    acc: float | None = option(
        None,
        "Acceleration of complete data, made here.",
        only=(MRI, CT),
        first=True,
        result=True,
    )
    mask: str | None = option(
        None,
        "Kind of sampling pattern, or a file with one (inpaint: a picture, white where the image "
        "is known).",
        only=(MRI, CT, "inpaint"),
        first=True,
    )
    noise_std: float | None = option(
        None,
        "Noise per real and imaginary part.",
        only=(*SCANS, *PICTURES),
        result=True,
    )
    maps: str | None = option(
        None, "Coil maps: fitted (default), espirit or low-resolution.", only=(MRI,), result=True
    )
    metal: float | None = option(
        None,
        "Leave out rays through what is above so many HU in the filtered back-projection, as 3000.",
        only=(CT,),
        result=True,
    )
    slices: str | None = option(None, "N or FIRST:STOP.", only=SCANS)
    nan: str = option("refuse", "Bad values in the scan: refuse or zero.", only=SCANS, result=True)
    key: str | None = option(None, "Array or series within the file.", only=SCANS, result=True)
    axes: str | None = option(
        None, "Axes of a plain array, as slice,coil,y,x.", only=(MRI, CT), result=True
    )
    blur: float = option(
        2.0,
        "Std of the Gaussian kernel, in pixels.",
        only=("deblur",),
        place="operator.std",
    )
    factor: int = option(2, "How much finer.", only=("super-resolution",))
    weights: str = option("rec601", "Grey of colour: rec601 or mean.", only=("colorize",))
    label: int | None = option(None, "Which class to draw.", only=(CLASS,))
    size: int = option(28, "Side of the images to draw.", only=(CLASS,))


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How the posterior is sampled, and against what that is compared."""

    samples: int = option(8, "Posterior samples a slice.", first=True, result=True)
    method: str = option("auto", "Method of `solve`.", only=(*SCANS, *PICTURES), result=True)
    steps: int | None = option(None, "Steps of the sampler.", result=True)
    budget: str | None = option(
        None,
        "fast (default) or accurate.",
        only=(*SCANS, *PICTURES),
        first=True,
    )
    seed: int = option(0, "Seed of pattern and samples.", place="operator.seed", result=True)
    baseline: str = option(
        "tikhonov", "Compared with: tikhonov, tv, wavelet, none.", only=SCANS, result=True
    )
    withheld: bool = option(
        False,
        "Check the prior on a tenth of the measured lines, withheld: costs 19 more samples of the "
        "middle slice.",
        only=(MRI, CT),
        result=True,
    )
    couple_z: float | None = option(
        None,
        "Hold slices together (by dds): the mean |difference| of neighbours, in HU (mri: shares "
        "of the image's scale).",
        only=SCANS,
        place="volume.between_slices",
        result=True,
    )
    guidance: float = option(
        1.0, "Strength of the classifier.", only=(CLASS,), place="operator.scale"
    )


@dataclass(frozen=True, kw_only=True)
class PriorOptions:
    """Which prior, and what it is shown."""

    prior: str | None = option(
        None,
        "Shipped name or file; default: the one that ships for the operator.",
        first=True,
        place="prior",
    )
    patch: int | None = option(
        None,
        "Show the prior patches of so many pixels a side: for images too large for memory, or "
        "for the prior.",
        only=(*SCANS, *PICTURES),
        place="patches.size",
        result=True,
    )
    overlap: int | None = option(
        None,
        "Pixels that patches share; default a quarter.",
        only=(*SCANS, *PICTURES),
        place="patches.overlap",
        result=True,
    )


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What is written, and where."""

    out: Path = option(  # noqa: RUF009
        Path("reconstructions"),
        "Folder of the outputs.",
        first=True,
        place="",
        flags=("--out", "-o"),
    )
    overwrite: bool = option(False, "Replace earlier outputs.", first=True, place="")
    format_out: tuple[str, ...] = option(
        (), "Also write dicom, nifti or bart; may be repeated.", only=SCANS
    )
    keep_phi: bool = option(
        False, "DICOM: copy patient and study of a DICOM scan.", only=SCANS, place=""
    )
    allow_no_geometry: bool = option(False, "DICOM even where no position is known.", only=SCANS)
    hash_names: bool = option(False, "Name outputs by content, not by input name.", only=SCANS)
    keep_samples: bool = option(True, "Store every sample in the volume.", only=SCANS, result=True)
    pages: bool = option(True, "Write the HTML report and PNG previews.", only=SCANS)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """By whom the work is done, and in how many parts."""

    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps.", only=(*SCANS, *PICTURES))
    shard: str = option("1/1", "Do part I of N of the work, as in array jobs.", only=SCANS)
    resume: bool = option(False, "Go on with an interrupted run.", only=SCANS)
    keep_going: bool = option(False, "Do not stop at a bad slice; exit 5 at the end.", only=SCANS)


# Name of a group (a panel of --help) -> its fields and the section of YAML that holds them.
GROUPS: dict[str, tuple[type, str]] = {
    "Scan": (ScanOptions, "operator"),
    "Sampling": (SamplingOptions, "method"),
    "Prior": (PriorOptions, "patches"),
    "Output": (OutputOptions, "output"),
    "Run": (RunOptions, ""),
}


def rows(cls: type, group: str, section: str = "") -> tuple[Option, ...]:
    """The rows of one group."""
    hints = typing.get_type_hints(cls)
    found = []
    for field in dataclasses.fields(cls):
        row = dict(field.metadata)
        if row["place"] is None:
            row["place"] = f"{section}.{field.name}" if section else ""
        found.append(Option(field.name, hints[field.name], field.default, group=group, **row))
    return tuple(found)


@functools.cache
def table() -> dict[str, Option]:
    """Name -> row, group by group."""
    made = (rows(cls, group, section) for group, (cls, section) in GROUPS.items())
    return {row.name: row for group in made for row in group}


def family(operator: str) -> str:
    """The operator's name in the table: one of the user's own is package.module:factory."""
    return OWN if ":" in operator else operator
