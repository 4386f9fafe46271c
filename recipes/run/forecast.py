"""`reconstruct --dry-run`: what was found, what would be done, what it would cost, and why not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from inverse_score.device import peak_memory, total_memory, use_cores
from inverse_score.errors import BadRequest
from inverse_score.io.names import duration, printable
from inverse_score.io.runs.results import RunFolder
from inverse_score.posterior import resolve

from .plan import make_plan, seconds_per_call

if TYPE_CHECKING:
    from .plan import Plan, Task
    from .request import Request


def dry_run(request: Request) -> dict[str, Any]:
    """A description of the run as nested plain values; `refused` holds the reasons against it."""
    if request.pictures:
        raise BadRequest(f"--dry-run does nothing for --operator {request.operator}")
    use_cores()
    try:
        plan = make_plan(request)
    except (ValueError, RuntimeError) as error:
        return {"refused": [printable(error, 1000)]}
    calls, refused = None, []
    try:
        calls = expected_calls(plan)
    except (ValueError, RuntimeError) as error:
        refused = [printable(error, 1000)]
    found: dict[str, Any] = {
        "scans": [_scan(plan, task) for task in plan.tasks],
        "prior": _prior(plan),
        "device": str(plan.device),
        "samples": f"{request.samples} a slice, in units of {plan.samples_of(0)}",
        **_cost(plan, calls),
        "outputs": [f"{task.name}.h5" for task in plan.tasks] + ["summary.json"],
        "refused": [],
    }
    found["refused"] = list(dict.fromkeys([*_obstacles(plan, found), *refused]))
    return found


def _scan(plan: Plan, task: Task) -> dict[str, Any]:
    recipe = task.recipe
    scan = recipe.scan
    axes = {
        "kspace": "slice, coil, readout, phase",
        "sinogram": "slice, angle, detector",
        "measurement": "slice, ...",
    }
    found: dict[str, Any] = {
        "name": task.name,
        "format": scan.format,
        "axes": f"({axes.get(scan.kind, 'slice, row, column')}) = {scan.shape}",
        "slices": f"{task.slices.start} to {task.slices.stop - 1}",
        "image": f"{recipe.shape}, {scan.crop or recipe.shape} written",
        "acceleration": _acceleration(recipe),
        "references": ", ".join(recipe.references) or "none",
        "notes": "; ".join([*scan.notes, *recipe.notes]) or "none",
    }
    try:
        problem = plan.problem(plan.tasks.index(task), task.slices.start)
        found["first slice"] = dict(problem.facts)
    except (ValueError, RuntimeError) as error:
        found["refused"] = printable(error, 1000)
    return found


def _acceleration(recipe: Any) -> str:
    asked = "not asked for" if recipe.asked is None else f"asked {recipe.asked:g}"
    return f"{recipe.achieved:.3g} ({asked})"


def _prior(plan: Plan) -> dict[str, Any]:
    prior = plan.prior
    return {
        "name": plan.prior_name,
        "sha256": plan.prior_sha256,
        "sde": type(prior.sde).__name__,
        "takes": str(prior.event_shape or "any shape"),
        "domain": printable(prior.card.get("domain", "not said")),
    }


def expected_calls(plan: Plan) -> int | None:
    """Calls of the network that each sample will take: what the solver itself would do.

    None where the sampler chooses its own steps.
    """
    problem = plan.problem(0, plan.tasks[0].slices.start)
    options = {key: value for key, value in plan.solving().items() if key != "seed"}
    exact = not bool(torch.as_tensor(problem.noise_std).any())
    return resolve(plan.prior, problem.operator, exact=exact, **options).nfe


def _cost(plan: Plan, calls: int | None) -> dict[str, Any]:
    """Time from one measured call of the network; memory from this process after it."""
    if calls is None:
        return {"disk": f"about {_disk(plan) / 2**20:.0f} MiB"}
    slices = sum(len(task.slices) for task in plan.tasks)
    shapes = {task.recipe.shape for task in plan.tasks}
    call = max(seconds_per_call(plan, shape) for shape in shapes)
    total = call * calls * slices * plan.chunks / plan.request.part[1]
    return {
        "calls": calls,
        "time": f"about {duration(total)}: {call:.2f} s a call, {calls} calls",
        "memory": f"about {peak_memory() / 2**30:.1f} of {total_memory() / 2**30:.1f} GiB",
        "disk": f"about {_disk(plan) / 2**20:.0f} MiB",
    }


def _disk(plan: Plan) -> int:
    """Bytes of the outputs: samples twice (units, volume), six maps, page and previews."""
    total = 0
    for task in plan.tasks:
        H, W = task.recipe.scan.crop or task.recipe.shape
        sample = 8 if task.recipe.channels == 2 else 4
        per_slice = H * W * (2 * plan.request.samples * sample + 9 * 4 + 8)
        total += per_slice * len(task.slices)
    return total


def _obstacles(plan: Plan, found: dict[str, Any]) -> list[str]:
    reasons = [scan["refused"] for scan in found["scans"] if "refused" in scan]
    out = Path(plan.request.out)
    there = next(p for p in (out, *out.resolve().parents) if p.exists())
    free = shutil.disk_usage(there).free
    if _disk(plan) > free:
        reasons.append(f"{_disk(plan) >> 20} MiB are needed and {free >> 20} MiB free")
    manifest = {"inputs": plan.inputs(), "chunks": plan.chunks, "config": {}}
    existing = [p.name for p in RunFolder(out, manifest).outputs() if p.exists()]
    if existing and not (plan.request.overwrite or plan.request.resume):
        reasons.append(f"{out.name} already holds {', '.join(existing)}: --overwrite or --resume")
    return reasons
