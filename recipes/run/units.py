"""The work itself: a function of a plan and a batch of its units, whoever calls it and where.

A unit (scan, slice, chunk of samples) is solved alone, or with the other slices of its volume
where these are held together; its arrays and facts are the same whatever was computed before.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from inverse_score.device import is_out_of_memory
from inverse_score.errors import OutOfResources, PartialFailure
from inverse_score.io.runs.results import Unit
from inverse_score.prior import SliceWise
from inverse_score.solver import Diverged

from ..volume import as_volume, at_one_scale, stacked
from .verdict import fit_facts, withheld_facts

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from inverse_score.prior import Prior
    from inverse_score.reconstruction import Reconstruction

    from ..problem import Problem
    from .plan import Plan

# Images of a volume that the network sees at once.
MAX_SLICES = 16


@dataclass(frozen=True)
class UnitResult:
    """arrays and facts: what is kept of a unit; seconds: of what, by name; notes: for people."""

    unit: Unit
    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]
    seconds: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def batches(plan: Plan, units: list[Unit]) -> list[list[Unit]]:
    """Units that are solved together: each alone, or the slices of a volume that are coupled."""
    if plan.request.couple_z is None:
        return [[unit] for unit in units]
    volumes: dict[tuple[int, int], list[Unit]] = {}
    for unit in units:
        volumes.setdefault((unit.scan, unit.chunk), []).append(unit)
    return list(volumes.values())


@dataclass
class _Aside:
    """What is told beside a batch's samples: notes, and the seconds that its problems took."""

    notes: list[str] = field(default_factory=list)
    problems: float = 0.0


def compute(plan: Plan, batch: list[Unit]) -> Iterator[UnitResult]:
    """Each unit of a batch, as soon as it is done; PartialFailure where sampling diverges."""
    reader, aside = plan.tasks[batch[0].scan].recipe.scan.read, _Aside()
    read, made = reader.seconds, 0.0
    for unit, problem, rec in _solved(plan, batch, aside):
        began = time.perf_counter()
        arrays, facts = described(plan, unit, problem, rec)
        seconds = {
            "reading": reader.seconds - read,
            "maps": aside.problems - made - (reader.seconds - read),
            "network": rec.seconds,
            "rest": time.perf_counter() - began,
        }
        read, made = reader.seconds, aside.problems
        yield UnitResult(unit, arrays, facts, seconds, tuple(aside.notes))
        aside.notes.clear()


def described(
    plan: Plan, unit: Unit, problem: Problem, rec: Reconstruction
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Samples of a unit with what the volume needs beside them; chunk 0 adds the baselines."""
    task, recipe = plan.tasks[unit.scan], plan.tasks[unit.scan].recipe
    samples = rec.samples[:, 0]  # type: ignore[index]
    mean = samples.mean(0, keepdim=True)
    arrays = {
        "samples": _numpy(recipe.raw(samples)),
        "residual": _numpy(recipe.raw(problem.residual(mean)[0])),
        "prior_part": _numpy(recipe.raw(problem.prior_part(mean, plan.prior)[0])),
    }
    facts: dict[str, Any] = {
        "misfit": [float(v) for v in rec.misfit[:, 0]],
        "nfe": rec.nfe,
        "vjps": rec.vjps,
        "method": rec.method,
        "warnings": list(rec.warnings),
    }
    if unit.chunk == 0:
        arrays["zero_filled"] = _numpy(recipe.picture(problem.first_look[0]))
        if plan.request.baseline != "none":
            other = problem.solve(plan.prior, method=plan.request.baseline, num_samples=1)
            arrays["baseline"] = _numpy(recipe.picture(other.samples[0, 0]))  # type: ignore[index]
        facts |= {key: _single(value) for key, value in problem.facts.items()}
        if unit.slice == task.middle:
            facts |= fit_facts(problem, rec, plan.prior)
            if plan.request.withheld:
                facts |= withheld_facts(problem, plan, task)
    return arrays, facts


def _solved(
    plan: Plan, batch: list[Unit], aside: _Aside
) -> Iterator[tuple[Unit, Problem, Reconstruction]]:
    """(unit, its problem, its samples) of a batch."""
    if plan.request.couple_z is not None:
        yield from _solved_together(plan, batch, aside)
        return
    for unit in batch:
        problem = _problem(plan, unit, aside)
        where = f"{plan.tasks[unit.scan].name}, slice {unit.slice}"
        yield unit, problem, _solve(plan, problem, unit, plan.prior, where, aside)


def _solved_together(
    plan: Plan, batch: list[Unit], aside: _Aside
) -> Iterator[tuple[Unit, Problem, Reconstruction]]:
    """The wanted slices of a volume, which is solved whole also where some are there."""
    task = plan.tasks[batch[0].scan]
    first = replace(batch[0], slice=task.slices.start)
    problems = [_problem(plan, replace(first, slice=k), aside) for k in task.slices]
    problems = at_one_scale(problems)
    prior = SliceWise(plan.prior, max_slices=MAX_SLICES)
    rec = _solve(plan, as_volume(stacked(problems)), first, prior, task.name, aside)
    for unit in batch:
        k = unit.slice - task.slices.start
        x = rec.samples[:, :, :, k]  # type: ignore[index]
        yield unit, problems[k], _of_slice(rec, x, problems[k], len(task.slices))


def _problem(plan: Plan, unit: Unit, aside: _Aside) -> Problem:
    began = time.perf_counter()
    problem = plan.problem(unit.scan, unit.slice)
    aside.problems += time.perf_counter() - began
    return problem


def _of_slice(rec: Reconstruction, x: Tensor, problem: Problem, slices: int) -> Reconstruction:
    """The volume's reconstruction as that of the slice with samples x (n, 1, C, H, W)."""
    return replace(
        rec,
        samples=x,
        misfit=torch.stack([problem.misfit(sample) for sample in x]),
        misfit_mean=problem.misfit(x.mean(0)),
        seconds=rec.seconds / slices,
    )


def _solve(
    plan: Plan, problem: Problem, unit: Unit, prior: Prior, where: str, aside: _Aside
) -> Reconstruction:
    """solve, in smaller batches where memory does not suffice: same samples to rounding."""
    count = size = plan.samples_of(unit.chunk)
    items = [plan.item(unit.scan, unit.slice, unit.chunk)]
    while True:
        try:
            return problem.solve(
                prior, num_samples=count, items=items, batch_size=size, **plan.solving()
            )
        except Exception as error:
            if isinstance(error, Diverged):
                raise PartialFailure(f"{where}: {error}") from error
            if not is_out_of_memory(error):
                raise
            if size == 1:
                raise OutOfResources(
                    f"{where} does not fit into the memory of {plan.device}, even one sample at "
                    "a time"
                ) from error
        size = max(1, size // 2)
        aside.notes.append(f"out of memory: {where} again, {size} at once")


def _single(value: Any) -> Any:
    """The number in a list of one: a slice is a batch of one."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _numpy(x: Tensor) -> np.ndarray:
    return x.detach().cpu().numpy()
