"""A run of a benchmark: its definition with the data, the prior and the place of its results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inverse_score.prior import Prior

from .definition import Definition, Row
from .results import Results
from .sources import Item


@dataclass(frozen=True)
class BenchmarkRun:
    """What a run is, beside its definition."""

    definition: Definition
    prior: Prior
    items: list[Item]
    results: Results
    rows: Sequence[Row]
    shard: tuple[int, int] = (0, 1)
    features: Path | None = None
