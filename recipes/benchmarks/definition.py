"""What a benchmark definition fixes, so that a number can be read and run again.

One YAML file a table: data, operator, noise, metric, prior, and rows of methods with the numbers
that were published for them. Every choice that has moved published numbers is a field with no
default: target, mask rule and seed, metric's data range, noise.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from inverse_score.errors import BadInput
from inverse_score.io.config import build, load_yaml, to_mapping

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Published:
    """A number somebody else reported; verified: read in the paper or its repository."""

    metric: str
    value: float
    source: str
    verified: bool
    spread: float | None = None
    case: str | None = None


@dataclass(frozen=True)
class Row:
    """One line of the table; method None is reported by others and not run here."""

    name: str
    method: str | None = None
    options: dict = field(default_factory=dict)
    num_samples: int = 1
    published: tuple[Published, ...] = ()


@dataclass(frozen=True)
class Case:
    """One column: an operator by name with its arguments, and what it overrides."""

    name: str
    operator: dict


@dataclass(frozen=True)
class Data:
    """Which items, in which layout, and where they are obtained.

    layout: "slices" (npz or npy files of (N, H, W) or (N, C, H, W)), "fastmri" (a folder of HDF5
    volumes), "complex" (npz with `images` complex (N, H, W), `maps` (N, coils, H, W)), or
    "photos" (a folder of image files).
    split: how held-out items are told from training items. items: slice of the sorted list.
    """

    layout: Literal["slices", "fastmri", "complex", "photos"]
    obtain: str
    split: str
    preprocessing: str
    size: tuple[int, ...]
    count: int | None = None
    units: str = "[0, 1]"
    shipped: str | None = None
    trim_slices: int = 0
    # The prior's data units are scale * these + offset.
    prior_units: tuple[float, float] = (1.0, 0.0)


@dataclass(frozen=True)
class Metric:
    """data_range: "one", "slice-max" or "volume-max" of the target, or "hu" (a fixed window).

    clip: the prediction to [0, data_range] first. region: "all", "circle" (inscribed), "body".
    """

    names: tuple[str, ...]
    data_range: Literal["one", "slice-max", "volume-max", "hu"]
    clip: bool
    region: Literal["all", "circle", "body"]
    note: str = ""


@dataclass(frozen=True)
class PriorNeed:
    """What the prior must be; `published` says which weights the paper used and who holds them."""

    channels: int
    default: str | None
    published: str


@dataclass(frozen=True)
class Definition:
    """A benchmark. task: "simulated" (image -> A x + noise -> solve), "scan" (raw k-space through
    the MRI recipe), "mini-mri" and "mini-ct" (a scan simulated on a finer grid, through the MRI or
    CT recipe), "likelihood" (bits per dimension) or "samples" (FID and inception score)."""

    name: str
    title: str
    paper: str
    task: Literal["simulated", "scan", "mini-mri", "mini-ct", "likelihood", "samples"]
    data: Data
    target: str
    noise: str
    noise_std: float
    seed: int
    metric: Metric
    prior: PriorNeed
    cases: tuple[Case, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for group, named in (("case", self.cases), ("row", self.rows)):
            names = [entry.name for entry in named]
            if not names or len(set(names)) != len(names):
                raise ValueError(f"{self.name}: every {group} needs a name of its own; got {names}")
        known = {case.name for case in self.cases} | {None}
        for row in self.rows:
            strangers = {p.case for p in row.published} - known
            if strangers:
                raise ValueError(f"{self.name}, {row.name}: no case {sorted(map(str, strangers))}")

    @property
    def fingerprint(self) -> str:
        """SHA-256 of every field; results carry it, and a run resumes only under the same."""
        text = json.dumps(to_mapping(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def definition_names() -> list[str]:
    """Names of the definitions that ship."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_definition(name_or_path: str | Path) -> Definition:
    """A definition by its name or from a YAML file; BadInput lists the names that ship."""
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = FOLDER / f"{name_or_path}.yaml"
        if str(name_or_path) not in definition_names():
            raise BadInput(
                f"no benchmark {name_or_path!r}; there are {', '.join(definition_names())}"
            )
    return build(Definition, load_yaml(path))


def describe(definition: Definition) -> str:
    """The definition as a person reads it: protocol, then published values with their sources."""
    lines = [f"{definition.name}: {definition.title}", f"  {definition.paper}", ""]
    for section in ("data", "metric", "prior"):
        lines.append(f"{section}:")
        for key, value in dataclasses.asdict(getattr(definition, section)).items():
            if value not in (None, "", 0, ()):
                lines.append(f"  {key}: {_plain(value)}")
    lines += [f"target: {definition.target}"]
    lines += [f"noise: {definition.noise} (noise_std {definition.noise_std:g})"]
    lines += [f"seed: {definition.seed}", "cases:"]
    lines += [f"  {case.name}: {_plain(case.operator)}" for case in definition.cases]
    lines += ["rows:"]
    for row in definition.rows:
        what = (
            "reported only" if row.method is None else f"method {row.method} {_plain(row.options)}"
        )
        lines.append(f"  {row.name}: {what}")
        for p in row.published:
            spread = "" if p.spread is None else f" +- {p.spread:g}"
            flag = "verified" if p.verified else "UNVERIFIED"
            lines.append(
                f"    {p.case or 'all'} {p.metric} {p.value:g}{spread} [{flag}: {p.source}]"
            )
    lines += [f"note: {note}" for note in definition.notes]
    return "\n".join(lines)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
