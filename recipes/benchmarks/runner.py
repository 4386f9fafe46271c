"""Runs a definition: items x cases x rows, resumable, with the same seeds and masks forever."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from inverse_score.errors import BadInput, BadPrior
from inverse_score.prior import Prior
from inverse_score.solver import Reconstruction, solve
from operators import add_gaussian

from . import generative, minis
from .definition import Case, Definition, Row
from .forward import forward_operator
from .results import Results
from .run import BenchmarkRun
from .scoring import scores
from .sources import Item, open_items

Report = Callable[[str], None]


def start(
    definition: Definition,
    prior: Prior,
    out: Path,
    *,
    prior_hash: str,
    data: Path | None = None,
    limit: int | None = None,
    methods: Sequence[str] = (),
    shard: tuple[int, int] = (0, 1),
    features: Path | None = None,
) -> BenchmarkRun:
    """Check data, prior and results folder, all before anything is computed."""
    _check_prior(definition, prior)
    rows = chosen_rows(definition, methods)
    items = open_items(definition, data, limit)
    identity = {"definition": definition.fingerprint, "prior": prior_hash}
    return BenchmarkRun(
        definition,
        _in_units(prior, definition.data.prior_units),
        items,
        Results(out, identity, shard),
        rows,
        shard,
        features,
    )


def chosen_rows(definition: Definition, methods: Sequence[str]) -> list[Row]:
    """The definition's rows, or those of these methods; a method without a row gets a plain one."""
    if not methods:
        return [row for row in definition.rows if row.method is not None]
    rows = [row for row in definition.rows if row.method in methods]
    present = {row.method for row in rows}
    return rows + [Row(name, method=name) for name in methods if name not in present]


def run(run: BenchmarkRun, report: Report = lambda line: None) -> None:
    """Every record that is still missing, one item at a time."""
    work = list(pending(run))
    for number, (row, case, item) in enumerate(work, 1):
        started = time.perf_counter()
        record = TASKS[run.definition.task](run, row, case, item)
        record.setdefault("seconds", time.perf_counter() - started)
        run.results.add({"row": row.name, "case": case.name, "item": item.key, **record})
        text = ", ".join(f"{name} {value:.4g}" for name, value in record["scores"].items())
        report(f"[{number}/{len(work)}] {item.key}, {case.name}, {row.name}: {text}")


def pending(run: BenchmarkRun) -> Iterator[tuple[Row, Case, Item]]:
    """What this shard has left to do; work i belongs to shard i mod n."""
    index, count = run.shard
    everything = (
        (row, case, item) for item in run.items for case in run.definition.cases for row in run.rows
    )
    for number, (row, case, item) in enumerate(everything):
        mine = number % count == index
        if mine and (row.name, case.name, item.key) not in run.results.done:
            yield row, case, item


def _simulated(run: BenchmarkRun, row: Row, case: Case, item: Item) -> dict[str, Any]:
    definition = run.definition
    x = item.load()
    operator = forward_operator(case.operator, item, x, definition.seed)
    y = add_gaussian(
        operator(x[None]),
        definition.noise_std,
        seed=definition.seed,
        items=[item.number],
        where=getattr(operator, "mask", None),
    )
    rec = solve(
        y,
        operator,
        run.prior,
        method=row.method or "auto",
        noise_std=definition.noise_std,
        num_samples=row.num_samples,
        seed=definition.seed,
        items=[item.number],
        **row.options,
    )
    return {"scores": _image_scores(definition, x, rec.mean[0]), **cost(rec)}


def _image_scores(definition: Definition, x: Tensor, mean: Tensor) -> dict[str, float]:
    target, prediction = magnitude(x), magnitude(mean)
    if definition.metric.data_range == "one":
        return scores(definition.metric, target, prediction)
    per_slice = [
        scores(definition.metric, t[None], p[None]) for t, p in zip(target, prediction, strict=True)
    ]
    return {name: float(np.mean([s[name] for s in per_slice])) for name in per_slice[0]}


def magnitude(x: Tensor) -> np.ndarray:
    """(C, H, W) as (slices, H, W) to score: |re + i im| of two channels, else the channels."""
    if x.shape[0] == 2:
        return x.square().sum(0, keepdim=True).sqrt().numpy()
    return x.numpy()


def cost(rec: Reconstruction) -> dict[str, Any]:
    return {"nfe": rec.nfe, "vjps": rec.vjps, "seconds": rec.seconds, "method": rec.method}


TASKS: dict[str, Callable[[BenchmarkRun, Row, Case, Item], dict[str, Any]]] = {
    "simulated": _simulated,
    "scan": minis.scan_volume,
    "mini-mri": minis.mini_mri,
    "mini-ct": minis.mini_ct,
    "likelihood": generative.likelihood,
    "samples": generative.samples,
}


def _check_prior(definition: Definition, prior: Prior) -> None:
    if prior.channels not in (None, definition.prior.channels):
        raise BadPrior(
            f"{definition.name} takes a prior of {definition.prior.channels} channels; this one "
            f"has {prior.channels}. The paper's: {definition.prior.published}"
        )


def _in_units(prior: Prior, units: tuple[float, float]) -> Prior:
    """The prior with data in the benchmark's units v, its own data being scale * v + offset."""
    scale, offset = units
    if scale <= 0:
        raise BadInput(f"prior_units must be (scale > 0, offset); got {units}")
    if units == (1.0, 0.0):
        return prior
    converted = copy.copy(prior)
    converted.range = (prior.range[0] / scale, (prior.range[1] - offset) / scale)
    return converted
