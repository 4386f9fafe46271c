"""`reconstruct --dry-run`: what was found, what would be done, what it would cost, and why not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..io.names import printable
from .progress import duration

if TYPE_CHECKING:
    from .plan import Plan, Task
    from .request import Request

DEFAULT_STEPS = {"fast": 40, "accurate": 60}


def dry_run(request: Request) -> dict[str, Any]:
    """A description of the run as nested plain values; `refused` holds the reasons against it."""
    from .plan import make_plan
    from .resources import use_cores

    use_cores()
    try:
        plan = make_plan(request)
    except (ValueError, RuntimeError) as error:
        return {"refused": [printable(error, 1000)]}
    found: dict[str, Any] = {
        "scans": [_scan(plan, task) for task in plan.tasks],
        "prior": _prior(plan),
        "device": str(plan.device),
        "samples": f"{request.samples} a slice, in units of {plan.samples_of(0)}",
        **_cost(plan),
        "outputs": [f"{task.name}.h5" for task in plan.tasks] + ["summary.json"],
        "refused": [],
    }
    found["refused"] = _obstacles(plan, found)
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
        problem = recipe.problem(task.slices.start, plan.prior, plan.device)
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


def _cost(plan: Plan) -> dict[str, Any]:
    """Time from one measured call of the network; memory from this process after it."""
    from .plan import seconds_per_call
    from .resources import peak_memory, total_memory

    steps = plan.request.steps or DEFAULT_STEPS[plan.budget]
    slices = sum(len(task.slices) for task in plan.tasks)
    shapes = {task.recipe.shape for task in plan.tasks}
    call = max(seconds_per_call(plan, shape) for shape in shapes)
    total = call * steps * slices * plan.chunks / plan.request.shard[1]
    return {
        "time": f"about {duration(total)}: {call:.2f} s a call, {steps} steps",
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
    from ..io.runs.results import RunFolder

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
