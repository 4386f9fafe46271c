"""Volumes, pages, pictures and summary.json of a plan whose units are done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inverse_score import __version__
from inverse_score.io.formats.exports import export_all
from inverse_score.io.pictures import colour, png, to_bytes
from inverse_score.io.runs.commits import commit_bytes, commit_json
from inverse_score.io.runs.report import write_report
from inverse_score.io.runs.results import RunFolder, Unit
from inverse_score.io.runs.volume import (
    IMAGES,
    MAPS,
    NOTICE,
    ResultFile,
    open_volume,
    score,
    write_volume,
)

from .assemble import slice_results
from .recipe_file import recipe_text
from .verdict import fit_attributes, std_scale

if TYPE_CHECKING:
    from .plan import Plan


def publish(plan: Plan, folder: RunFolder, failed: dict[Unit, str]) -> dict[str, Any]:
    """Write every output of the run; returns what summary.json holds. Units go once all is well."""
    summary: dict[str, Any] = {
        "version": 1,
        "status": "partial" if failed else "complete",
        "use": NOTICE,
        "run": folder.manifest["run"],
        "scans": [],
    }
    for scan, task in enumerate(plan.tasks):
        paths = output_paths(plan, scan)
        bad = {unit: text for unit, text in failed.items() if unit.scan == scan}
        mask = task.recipe.mask
        write_volume(
            paths["volume"],
            slice_results(plan, folder, scan, bad, std_scale(plan, scan).factor),
            len(task.slices),
            attributes=attributes(plan, scan, folder, partial=bool(bad)),
            mask=mask,
        )
        volume = open_volume(paths["volume"])
        if plan.request.pages:
            write_report(paths["volume"], paths["page"])
            write_pictures(volume, paths["pictures"])
        summary["scans"].append(describe(plan, scan, volume))
        if plan.request.format_out and not bad:
            summary["scans"][-1]["exports"] = _exports(plan, scan, volume)
    commit_json(plan.request.out / "summary.json", summary)
    commit_bytes(plan.request.out / "recipe.yaml", recipe_text(plan).encode())
    if not failed:
        folder.finish()
    return summary


def _exports(plan: Plan, scan: int, volume: ResultFile) -> list[str]:
    """Write the formats that were asked for; their names. What is there is this run's own."""
    r, stem = plan.request, plan.request.out / plan.tasks[scan].name
    made = export_all(
        volume,
        r.format_out,
        stem,
        scan=plan.tasks[scan].recipe.scan,
        keep_phi=r.keep_phi,
        allow_no_geometry=r.allow_no_geometry,
        overwrite=True,
    )
    return [str(path.relative_to(r.out)) for path in made]


def attributes(plan: Plan, scan: int, folder: RunFolder, *, partial: bool) -> dict[str, Any]:
    """Provenance of a volume: all that is needed to make it again, and nothing about a person."""
    r, recipe = plan.request, plan.tasks[scan].recipe
    found: dict[str, Any] = {
        "name": plan.tasks[scan].name,
        "software": f"inverse_score {__version__}",
        "run": folder.manifest["run"],
        "status": "partial" if partial else "complete",
        "input_sha256": plan.tasks[scan].sha256,
        "input_format": recipe.scan.format,
        "operator": r.operator,
        "acceleration_achieved": recipe.achieved,
        "prior": plan.prior_name,
        "prior_sha256": plan.prior_sha256,
        "method": _method(plan, scan, folder),
        "budget": plan.budget,
        "num_samples": r.samples,
        "seed": r.seed,
        "device": plan.device.type,
        "units": recipe.units,
        "first_look": recipe.first_look,
        "notes": "; ".join([*recipe.scan.notes, *recipe.notes]),
    }
    if recipe.asked is not None:
        found["acceleration"] = float(recipe.asked)
    if r.baseline != "none":
        found["baseline"] = r.baseline
    if recipe.references:
        found["reference"] = next(iter(recipe.references))
    if "simulated" in recipe.scan.facts:
        found["simulated"] = str(recipe.scan.facts["simulated"])
    if r.samples > 1:
        scale = std_scale(plan, scan)
        found |= {"calibrated": scale.checked, "calibration": scale.words}
        found["std_factor"] = scale.factor
    found |= fit_attributes(plan, scan, folder)
    if "acquisition" in recipe.scan.facts:
        found["acquisition"] = str(recipe.scan.facts["acquisition"])
    return found


def _method(plan: Plan, scan: int, folder: RunFolder) -> str:
    """What ran, in the words of the first finished unit."""
    done = (unit for unit in folder.units if unit.scan == scan and folder.done(unit))
    return next((folder.load(unit)[1]["method"] for unit in done), plan.request.method)


def describe(plan: Plan, scan: int, volume: ResultFile) -> dict[str, Any]:
    """One scan's entry of summary.json: outputs by relative name, scores, facts of its slices."""
    paths, out = output_paths(plan, scan), plan.request.out
    entry: dict[str, Any] = {
        "name": plan.tasks[scan].name,
        "outputs": {k: str(p.relative_to(out)) for k, p in paths.items() if p.exists()},
        "attributes": volume.attributes,
        "slices": volume.facts,
    }
    if "reference" in volume.names and volume["reconstruction", 0].ndim == 2:
        entry["scores"] = {
            name: score(volume, name)
            for name in ("zero_filled", "baseline", "reconstruction")
            if name in volume.names
        }
    return json.loads(json.dumps(entry, default=str))


def output_paths(plan: Plan, scan: int) -> dict[str, Path]:
    out, name = plan.request.out, plan.tasks[scan].name
    return {"volume": out / f"{name}.h5", "page": out / f"{name}.html", "pictures": out / name}


def write_pictures(volume: ResultFile, folder: Path) -> None:
    """One PNG a slice and image: grey images on one scale a volume, maps on their own."""
    hu = volume.attributes.get("units") == "HU"
    shown = volume.shown()
    tops = {name: volume.top(name, shown) for name in volume.names}
    for k in shown:
        for name in volume.names:
            image = volume[name, int(k)]
            if name in MAPS:
                grey = to_bytes(image.mean(0) if image.ndim == 3 else image, 0.0, tops[name])
                pixels = colour(grey)
            elif hu:
                pixels = to_bytes(image, -160.0, 240.0)
            else:
                pixels = to_bytes(image, 0.0, tops["reconstruction"])
                pixels = np.moveaxis(pixels, 0, -1) if image.ndim == 3 else pixels
            number = volume.facts[int(k)]["slice"]
            title = {"Title": IMAGES.get(name) or MAPS[name], "Disclaimer": NOTICE}
            commit_bytes(folder / f"slice-{number:04d}-{name}.png", png(pixels, title))
