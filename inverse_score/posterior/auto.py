"""method="auto": what runs for a budget, from the table that the benchmark measured."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

from ..prior import Prior
from .covariance import spectrum_of
from .measurement import Measurement

BUDGETS = ("fast", "accurate")
_TABLE = "auto_methods.json"


@functools.cache
def table() -> dict[str, dict[str, dict[str, Any]]]:
    """budget -> family of operators, or "default" -> method and options; written by the benchmark.

    `python -m recipes.benchmarks.posteriors --write-table` measures and writes it, with the
    figures by which each was chosen under "measured".
    """
    return json.loads(resources.files("inverse_score").joinpath("assets", _TABLE).read_text())


def choose(prior: Prior, data: Measurement, budget: str) -> tuple[str, dict[str, Any], str]:
    """(method, its options, why): what "auto" runs. budget "fast" never differentiates."""
    if budget not in BUDGETS:
        raise ValueError(f'budget must be "fast" or "accurate"; got {budget!r}')
    rows = table()[budget]
    entry = dict(rows.get(data.operator.forms.family, rows["default"]))
    entry.pop("measured", None)
    method, why = entry.pop("method"), f"auto, {budget}"
    if data.exact:
        why += ", exact data"
    if entry.get("covariance") == "spectrum":
        why += _without_spectrum(prior, data, entry)
    return method, entry, why


def _without_spectrum(prior: Prior, data: Measurement, entry: dict[str, Any]) -> str:
    """Falls back to the isotropic covariance where there is no spectrum, and says so."""
    spectrum = spectrum_of(prior)
    shape = data.operator.in_shape
    if spectrum is not None and len(shape) == 3 and shape[0] == len(spectrum.directions):
        return ""
    entry["covariance"] = "isotropic"
    for key in ("tol", "max_iter"):
        entry.pop(key, None)
    reason = "the prior's card has no error spectrum" if spectrum is None else "not its images"
    return f"; isotropic covariance because {reason}: spread too wide or narrow by far"
