"""Doing a plan: units one by one, each committed; volumes put together once all units are there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BadInput, OutOfResources, PartialFailure
from ..io.names import printable
from ..io.results import RunFolder, Unit
from ..io.volume import SliceResult
from . import is_out_of_memory
from .trust import fit_facts, middle, withheld_facts

if TYPE_CHECKING:
    from torch import Tensor

    from recipes.problem import Problem

    from ..prior import Prior
    from .plan import Plan, Task
    from .progress import Progress


PARTS = ("opening", "reading", "maps", "network", "rest", "writing")


@dataclass(frozen=True)
class Timed:
    """A scan's reader of slices that adds up its seconds under "reading"."""

    read: Callable[[int], np.ndarray]
    seconds: dict[str, float]

    def __call__(self, k: int) -> np.ndarray:
        began = time.perf_counter()
        try:
            return self.read(k)
        finally:
            self.seconds["reading"] += time.perf_counter() - began


class Worker:
    """Computes the units of a plan; remembers the last slice, whose chunks follow each other."""

    def __init__(self, plan: Plan, folder: RunFolder, progress: Progress):
        self.plan, self.folder, self.progress = plan, folder, progress
        self.seconds = dict.fromkeys(PARTS, 0.0)
        for task in plan.tasks:
            task.recipe.scan = replace(
                task.recipe.scan, read=Timed(task.recipe.scan.read, self.seconds)
            )
        self._last: tuple[tuple[int, int], Problem] | None = None

    def run(self, units: list[Unit]) -> None:
        """Compute and commit what is missing of these; with keep_going, failures are recorded."""
        for group in self.groups(self.folder.missing(units)):
            try:
                for unit, problem, rec in self.solved(group):
                    arrays, facts = self.described(unit, problem, rec)
                    began = time.perf_counter()
                    self.folder.save(unit, arrays, facts)
                    self.seconds["writing"] += time.perf_counter() - began
            except (BadInput, PartialFailure) as error:
                if not self.plan.request.keep_going:
                    raise
                for unit in self.folder.missing(group):
                    self.folder.fail(unit, printable(error))
                self.progress.note(f"failed: {printable(error)}")
            for _ in group:
                self.progress.step("units")

    def groups(self, units: list[Unit]) -> list[list[Unit]]:
        """Units that are solved together: each alone."""
        return [[unit] for unit in units]

    def solved(self, group: list[Unit]) -> Iterator[tuple[Unit, Problem, Any]]:
        """(unit, its problem, its samples) of a group."""
        for unit in group:
            problem = self._problem(unit)
            yield unit, problem, self._solve(problem, unit, self.plan.prior)

    def described(
        self, unit: Unit, problem: Problem, rec: Any
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Samples of a unit with what the volume needs beside them; chunk 0 adds the baselines."""
        task, plan = self.plan.tasks[unit.scan], self.plan
        began = time.perf_counter()
        samples = rec.samples[:, 0]
        mean = samples.mean(0, keepdim=True)
        recipe = task.recipe
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
            arrays |= self._baseline(problem, task)
            facts |= {key: _single(value) for key, value in problem.facts.items()}
            if unit.slice == middle(task.slices):
                facts |= fit_facts(problem, rec, plan.prior)
                if plan.request.withheld:
                    facts |= withheld_facts(problem, plan, task)
        self.seconds["network"] += rec.seconds
        self.seconds["rest"] += time.perf_counter() - began
        return arrays, facts

    def _problem(self, unit: Unit) -> Problem:
        key = (unit.scan, unit.slice)
        if self._last is None or self._last[0] != key:
            self._last = None
            began, read = time.perf_counter(), self.seconds["reading"]
            recipe = self.plan.tasks[unit.scan].recipe
            problem = recipe.problem(unit.slice, self.plan.prior, self.plan.device)
            self.seconds["maps"] += time.perf_counter() - began + read - self.seconds["reading"]
            self._last = (key, problem)
        return self._last[1]

    def _solve(self, problem: Problem, unit: Unit, prior: Prior) -> Any:
        """solve, in smaller batches where memory does not suffice: same samples to rounding."""
        from ..solver import Diverged

        count = batch_size = self.plan.samples_of(unit.chunk)
        while True:
            try:
                return problem.solve(
                    prior,
                    num_samples=count,
                    items=[self.plan.item(unit.scan, unit.slice, unit.chunk)],
                    batch_size=batch_size,
                    **self.plan.solving(),
                )
            except Exception as error:
                if isinstance(error, Diverged):
                    raise PartialFailure(f"{self._where(unit)}: {error}") from error
                if not is_out_of_memory(error):
                    raise
                if batch_size == 1:
                    raise OutOfResources(
                        f"{self._where(unit)} does not fit into the memory of "
                        f"{self.plan.device}, even one sample at a time"
                    ) from error
            batch_size = max(1, batch_size // 2)
            self.progress.note(f"out of memory: {self._where(unit)} again, {batch_size} at once")

    def _baseline(self, problem: Problem, task: Task) -> dict[str, np.ndarray]:
        name = self.plan.request.baseline
        if name == "none":
            return {}
        rec = problem.solve(self.plan.prior, method=name, num_samples=1)
        return {"baseline": _numpy(task.recipe.picture(rec.samples[0, 0]))}

    def _where(self, unit: Unit) -> str:
        return f"{self.plan.tasks[unit.scan].name}, slice {unit.slice}"


def worker_of(plan: Plan, folder: RunFolder, progress: Progress) -> Worker:
    """The worker of this plan: slice by slice, or volumes held together along z."""
    if plan.request.couple_z is None:
        return Worker(plan, folder, progress)
    from .coupled import CoupledWorker

    return CoupledWorker(plan, folder, progress)


def slice_results(
    plan: Plan, folder: RunFolder, scan: int, failed: dict[Unit, str], std_factor: float = 1.0
) -> Iterator[SliceResult]:
    """The slices of one volume from their units, in order; a failed slice is NaN and says why.

    std_factor: what the samples' std is multiplied by (`trust.std_scale`).
    """
    template: SliceResult | None = None
    for k in plan.tasks[scan].slices:
        units = [Unit(scan, k, chunk) for chunk in range(plan.chunks)]
        errors = [failed[unit] for unit in units if unit in failed]
        if errors:
            facts = {"slice": k, "status": "failed", "error": errors[0]}
            yield _failed(template or _any_result(plan, folder, scan), facts)
            continue
        template = _joined(plan, folder, scan, k, units)
        if "std" in template.images:
            template.images["std"] = np.float32(std_factor) * template.images["std"]
        yield template


def _joined(plan: Plan, folder: RunFolder, scan: int, k: int, units: list[Unit]) -> SliceResult:
    recipe = plan.tasks[scan].recipe
    loaded = [folder.load(unit) for unit in units]
    first, facts = loaded[0]
    samples = np.concatenate([arrays["samples"] for arrays, _ in loaded])
    weights = np.array([len(arrays["samples"]) for arrays, _ in loaded]) / len(samples)

    def average(name: str) -> np.ndarray:
        return sum(w * arrays[name] for w, (arrays, _) in zip(weights, loaded, strict=True))

    mean = samples.mean(axis=0, dtype=np.result_type(samples.dtype, np.complex128)
                        if np.iscomplexobj(samples) else np.float64)  # fmt: skip
    # Magnitude of the mean for complex images, whose mean of magnitudes has a noise floor.
    shown = np.abs(mean) if np.iscomplexobj(mean) else mean
    images = {
        "zero_filled": first["zero_filled"],
        "reconstruction": shown,
        "residual": np.abs(average("residual")),
        "prior_share": _share(average("prior_part"), mean, recipe.units),
    }
    if "baseline" in first:
        images["baseline"] = first["baseline"]
    if len(samples) > 1:
        values = np.abs(samples) if np.iscomplexobj(samples) else samples
        images["std"] = values.std(axis=0, ddof=1, dtype=np.float64)
    reference = _reference(recipe)
    if reference is not None:
        images["reference"] = recipe.references[reference](k)
    facts |= {
        "slice": k,
        "status": "ok",
        "misfit": [m for _, f in loaded for m in f["misfit"]],
        "nfe": max(f["nfe"] for _, f in loaded),
        "warnings": [text for _, f in loaded for text in f.get("warnings", [])],
    }
    facts.pop("run", None)
    kept = samples if plan.request.keep_samples else None
    return SliceResult({n: np.asarray(i, np.float32) for n, i in images.items()}, kept, facts)


def _share(part: np.ndarray, mean: np.ndarray, units: str) -> np.ndarray:
    """|x - R x| / |x| a pixel, at most 1; |x| not below a tenth of its largest value, or the map
    would show air."""
    size = np.abs(mean + 1000.0) if units == "HU" else np.abs(mean)
    return np.minimum(np.abs(part) / np.maximum(size, 0.1 * size.max() + 1e-30), 1.0)


def _reference(recipe: Any) -> str | None:
    return next(iter(recipe.references), None)


def _failed(template: SliceResult, facts: dict[str, Any]) -> SliceResult:
    images = {name: np.full_like(image, np.nan) for name, image in template.images.items()}
    samples = None if template.samples is None else np.full_like(template.samples, np.nan)
    return SliceResult(images, samples, facts)


def _any_result(plan: Plan, folder: RunFolder, scan: int) -> SliceResult:
    """A finished slice of this volume, for its shapes; BadInput if every slice failed."""
    for k in plan.tasks[scan].slices:
        units = [Unit(scan, k, chunk) for chunk in range(plan.chunks)]
        if not folder.missing(units):
            return _joined(plan, folder, scan, k, units)
    raise PartialFailure(f"{plan.tasks[scan].name}: every slice failed; nothing was written")


def _single(value: Any) -> Any:
    """The number in a list of one: a slice is a batch of one."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _numpy(x: Tensor) -> np.ndarray:
    return x.detach().cpu().numpy()


def output_paths(plan: Plan, scan: int) -> dict[str, Path]:
    out, name = plan.request.out, plan.tasks[scan].name
    return {"volume": out / f"{name}.h5", "page": out / f"{name}.html", "pictures": out / name}
