"""What is asked for, checked as far as it can be without opening a file or making a folder."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inverse_score.errors import BadRequest

from .options import (
    CLASS,
    OPERATORS,
    PICTURES,
    Option,
    OutputOptions,
    PriorOptions,
    RunOptions,
    SamplingOptions,
    ScanOptions,
    family,
    table,
)

# Values that are names, by option.
NAMES = {
    "budget": ("fast", "accurate"),
    "maps": ("auto", "fitted", "espirit", "low-resolution"),
    "nan": ("refuse", "zero"),
    "weights": ("rec601", "mean"),
    "format_out": ("dicom", "nifti", "bart"),
}
# The least value of numbers, and whether it is allowed itself.
LEAST = {
    "samples": (1, True), "steps": (2, True), "acc": (1, True), "noise_std": (0, True),
    "couple_z": (0, False), "patch": (1, True), "overlap": (0, True), "guidance": (0, True),
    "blur": (0, False), "factor": (1, True), "size": (1, True), "label": (0, True),
}  # fmt: skip
# What does something only beside another option.
NEEDS = {"keep_phi": "format_out", "allow_no_geometry": "format_out"}


@dataclass(frozen=True, kw_only=True)
class Request(ScanOptions, SamplingOptions, PriorOptions, OutputOptions, RunOptions):
    """Request(scans=["scan.h5"], acc=4): the options of `recipes.run.options`, used by name.

    scans: files, folders or patterns; options: of the method of `solve`, beyond those of the table.
    BadRequest for values that no run could take, and for options that do nothing here.
    """

    scans: tuple[str, ...] = ()
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("scans", "format_out"):
            values = getattr(self, name)
            values = (values,) if isinstance(values, str | Path) else values
            object.__setattr__(self, name, tuple(map(str, values)))
        object.__setattr__(self, "out", Path(self.out))
        self._check_operator()
        refuse_idle(self.operator, [row.name for row in given(self)])
        for name, known in NAMES.items():
            _check_name(table()[name], getattr(self, name), known)
        for name, (least, itself) in LEAST.items():
            _check_number(table()[name], getattr(self, name), least, itself)
        self._check_beside()
        _first_and_stop(self.slices)
        self._part()
        if self.family != CLASS:
            self._check_method()

    def _check_operator(self) -> None:
        if self.family not in OPERATORS:
            raise BadRequest(f"--operator must be one of {', '.join(OPERATORS)}; got "
                             f"{self.operator!r}")  # fmt: skip
        if self.family == CLASS and self.scans:
            raise BadRequest("--operator class draws from the prior and takes no picture")
        if self.family == CLASS and self.label is None:
            raise BadRequest("--operator class needs --label, the class to draw")
        if self.family != CLASS and not self.scans:
            what = "picture" if self.pictures else "scan"
            raise BadRequest(f"no {what} given: name files, folders or patterns")

    def _check_beside(self) -> None:
        """Options that depend on each other."""
        if self.overlap is not None and self.patch is None:
            raise BadRequest("--overlap is that of patches: give their size, --patch, too")
        if self.metal is not None and not math.isfinite(self.metal):
            raise BadRequest(f"--metal must be a threshold in HU; got {self.metal}")
        for name, other in NEEDS.items():
            if getattr(self, name) and "dicom" not in getattr(self, other):
                raise BadRequest(f"{table()[name].flag} does nothing without --format-out dicom")
        if self.couple_z is None:
            return
        if self.method not in ("auto", "dds"):
            raise BadRequest(f"--couple-z couples slices inside dds; got --method {self.method}")
        if self.withheld:
            raise BadRequest("--withheld checks one slice alone: leave it out with --couple-z")
        object.__setattr__(self, "method", "dds")

    def _check_method(self) -> None:
        from inverse_score.posterior import METHODS

        certain = [name for name, method in METHODS.items() if method.deterministic]
        _check_name(table()["method"], self.method, ("auto", *METHODS))
        _check_name(table()["baseline"], self.baseline, (*certain, "none"))
        if self.method in certain and self.samples > 1:
            raise BadRequest(f"--method {self.method} has one answer, not samples: --samples 1")

    def _part(self) -> tuple[int, int]:
        first, _, second = self.shard.partition("/")
        if not (first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second)):
            raise BadRequest(f"--shard must be I/N with 1 <= I <= N; got {self.shard!r}")
        return int(first), int(second)

    @property
    def part(self) -> tuple[int, int]:
        """(i, n) of --shard i/n."""
        return self._part()

    @property
    def family(self) -> str:
        """The operator's name in the table of options."""
        return family(self.operator)

    @property
    def pictures(self) -> bool:
        """Whether pictures are made, and no volumes."""
        return self.family in (*PICTURES, CLASS)

    def slice_range(self, count: int) -> range:
        """The wanted slices of `count`; they may lie beyond it."""
        if self.slices is None:
            return range(count)
        start, stop = _first_and_stop(self.slices)  # type: ignore[misc]
        return range(start, count if stop is None else stop)


def given(request: Request) -> list[Option]:
    """Options that are not as they are where nobody says anything."""
    return [row for row in table().values() if getattr(request, row.name) != row.default]


def refuse_idle(operator: str, names: Iterable[str], rows: Collection[Option] = ()) -> None:
    """BadRequest at the first option of these that does nothing for this operator.

    rows: more of the kind of the table's.
    """
    known = {**table(), **{row.name: row for row in rows}}
    for row in (known[name] for name in names if name in known):
        if family(operator) not in row.only:
            raise BadRequest(
                f"{row.flag} does nothing for --operator {operator}: {row.flag} belongs to "
                f"--operator {', '.join(row.only)}"
            )


def _check_name(row: Option, value: Any, known: tuple[str, ...]) -> None:
    for word in value if isinstance(value, tuple) else (value,):
        if word is not None and word not in known:
            raise BadRequest(f"{row.flag} must be one of {', '.join(known)}; got {word!r}")


def _check_number(row: Option, value: Any, least: float, itself: bool) -> None:
    if value is None:
        return
    if not math.isfinite(value) or value < least or (value == least and not itself):
        words = "at least" if itself else "more than"
        raise BadRequest(f"{row.flag} must be {words} {least}; got {value}")


def _first_and_stop(text: str | None) -> tuple[int, int | None] | None:
    """(3, 9) of "3:9", (5, 6) of "5", (3, None) of "3:"; None for None."""
    if text is None:
        return None
    first, colon, stop = text.partition(":")
    if not ((first.isdigit() or (colon and not first)) and (stop.isdigit() or not stop)):
        raise BadRequest(f"--slices must be N or FIRST:STOP; got {text!r}")
    start = int(first or 0)
    end = int(stop) if stop else (None if colon else start + 1)
    if end is not None and start >= end:
        raise BadRequest(f"--slices FIRST:STOP needs FIRST < STOP; got {text!r}")
    return start, end
