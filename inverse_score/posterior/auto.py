"""method="auto": what runs for a budget, from the table that the benchmark measured."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

from operators.nonlinear import NonlinearOperator

from ..prior import Prior
from .covariance import KEY, spectrum_of

BUDGETS = ("fast", "accurate")
_TABLE = "auto_methods.json"
# Operators whose exact data have a method of their own. Grey: what moment matching with an error
# spectrum leaves unsolved in it comes out as colour, several times the truth's.
_EXACT = {"Grayscale": "ddnm"}


@functools.cache
def table() -> dict[str, dict[str, dict[str, Any]]]:
    """budget -> family of operators, or "default" -> method and options; written by the benchmark.

    `python tests/studies/posteriors.py --write-table` measures and writes it, with the
    figures by which each was chosen under "measured".
    """
    return json.loads(resources.files("inverse_score").joinpath("assets", _TABLE).read_text())


def choose(
    prior: Prior, operator: Any, budget: str, *, exact: bool = False
) -> tuple[str, dict[str, Any], str]:
    """(method, its options, why): what "auto" runs. budget "fast" never differentiates."""
    if budget not in BUDGETS:
        raise ValueError(f'budget must be "fast" or "accurate"; got {budget!r}')
    if isinstance(operator, NonlinearOperator):
        # Decoupled annealing takes any differentiable operator, and no vjp of the network.
        return "daps", {}, "auto, not linear"
    rows, known, why = table()[budget], operator.forms.family, f"auto, {budget}"
    if exact:
        why += ", exact data"
        if known in _EXACT:
            return _EXACT[known], {}, why
    entry = dict(rows.get(known, rows["default"]))
    entry.pop("measured", None)
    method = entry.pop("method")
    if entry.get("covariance") == "spectrum":
        why += _without_spectrum(prior, operator.in_shape, entry)
    if entry.get("covariance") == "spectrum" and "eta" in prior.card[KEY]:
        # What calibrates the samples of this prior goes before what serves toys.
        entry["sampler_options"] = {**entry["sampler_options"], "eta": prior.card[KEY]["eta"]}
    return method, entry, why


def _without_spectrum(prior: Prior, shape: tuple[int, ...], entry: dict[str, Any]) -> str:
    """Falls back to the isotropic covariance where there is no spectrum, and says so."""
    spectrum = spectrum_of(prior)
    if spectrum is not None and spectrum.describes(shape):
        return ""
    entry["covariance"] = "isotropic"
    for key in ("tol", "max_iter"):
        entry.pop(key, None)
    reason = "the prior's card has no error spectrum" if spectrum is None else "not its images"
    return f"; isotropic covariance because {reason}: spread too wide or narrow by far"
