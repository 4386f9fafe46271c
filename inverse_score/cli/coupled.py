"""Volumes whose slices are held together: one solve a scan and chunk of samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..io.runs.results import Unit
from .work import Worker

if TYPE_CHECKING:
    from torch import Tensor

    from recipes.problem import Problem

# Images that the network sees at once.
MAX_SLICES = 16


class CoupledWorker(Worker):
    """All slices of a chunk are solved as one item; each is committed as a unit of its own."""

    def groups(self, units: list[Unit]) -> list[list[Unit]]:
        volumes: dict[tuple[int, int], list[Unit]] = {}
        for unit in units:
            volumes.setdefault((unit.scan, unit.chunk), []).append(unit)
        return list(volumes.values())

    def solved(self, group: list[Unit]) -> Iterator[tuple[Unit, Problem, Any]]:
        """The wanted slices of a volume, which is solved whole also where some are there."""
        from recipes.volume import as_volume, at_one_scale, stacked

        from ..prior import SliceWise

        first = replace(group[0], slice=self.plan.tasks[group[0].scan].slices.start)
        slices = self.plan.tasks[first.scan].slices
        problems = at_one_scale([self._problem(replace(first, slice=k)) for k in slices])
        prior = SliceWise(self.plan.prior, max_slices=MAX_SLICES)
        rec = self._solve(as_volume(stacked(problems)), first, prior)
        for unit in group:
            k = unit.slice - slices.start
            x = rec.samples[:, :, :, k]
            yield unit, problems[k], _of_slice(rec, x, problems[k], len(slices))

    def _where(self, unit: Unit) -> str:
        return self.plan.tasks[unit.scan].name


def _of_slice(rec: Any, x: Tensor, problem: Problem, slices: int) -> Any:
    """The volume's reconstruction as that of the slice with samples x (n, 1, C, H, W)."""
    import torch

    return replace(
        rec,
        samples=x,
        misfit=torch.stack([problem.misfit(sample) for sample in x]),
        misfit_mean=problem.misfit(x.mean(0)),
        seconds=rec.seconds / slices,
    )
