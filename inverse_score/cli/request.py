"""What `reconstruct` was asked for, checked as far as it can be without opening anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .images import OPERATORS

CHANNELS = {"mri": 2, "ct": 1}


@dataclass
class Request:
    """The command line of `reconstruct`, parsed."""

    scans: list[str]
    operator: str = "mri"
    acc: float | None = None
    mask: str | None = None
    prior: str | None = None
    samples: int = 8
    method: str = "auto"
    steps: int | None = None
    budget: str | None = None
    baseline: str = "tikhonov"
    noise_std: float | None = None
    withheld: bool = False
    maps: str | None = None
    metal: float | None = None
    patch: int | None = None
    overlap: int | None = None
    couple_z: float | None = None
    out: Path = Path("reconstructions")
    device: str = "auto"
    seed: int = 0
    slices: str | None = None
    nan: str = "refuse"
    key: str | None = None
    axes: str | None = None
    format_out: list[str] = field(default_factory=list)
    keep_phi: bool = False
    allow_no_geometry: bool = False
    shard: tuple[int, int] = (1, 1)
    resume: bool = False
    overwrite: bool = False
    keep_going: bool = False
    hash_names: bool = False
    keep_samples: bool = True
    pages: bool = True
    quiet: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"--samples must be at least 1; got {self.samples}")
        if self.operator not in CHANNELS and not self.custom:
            known = ", ".join((*CHANNELS, *OPERATORS, "package.module:factory"))
            raise ValueError(f"--operator must be one of {known}; got {self.operator!r}")
        if not self.scans:
            raise ValueError("no scan given: name files, folders or patterns")
        for option, value, operator in (("maps", self.maps, "mri"), ("metal", self.metal, "ct")):
            if value is not None and self.operator != operator:
                raise ValueError(f"--{option} belongs to --operator {operator}")
        if self.couple_z is not None:
            self._couple()

    def _couple(self) -> None:
        if self.method not in ("auto", "dds"):
            raise ValueError(f"--couple-z couples slices inside dds; got --method {self.method}")
        if self.withheld:
            raise ValueError("--withheld checks one slice alone: leave it out with --couple-z")
        self.method = "dds"

    @property
    def custom(self) -> bool:
        """Whether the operator is one of the user's own, package.module:factory."""
        return ":" in self.operator
