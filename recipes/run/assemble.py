"""The slices of a volume from its units, in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from inverse_score.errors import PartialFailure
from inverse_score.io.runs.results import RunFolder, Unit
from inverse_score.io.runs.volume import SliceResult

if TYPE_CHECKING:
    from .plan import Plan


def slice_results(
    plan: Plan, folder: RunFolder, scan: int, failed: dict[Unit, str], std_factor: float = 1.0
) -> Iterator[SliceResult]:
    """The slices of one volume from their units, in order; a failed slice is NaN and says why.

    std_factor: what the samples' std is multiplied by (`verdict.std_scale`).
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
        parts = (w * arrays[name] for w, (arrays, _) in zip(weights, loaded, strict=True))
        return sum(parts)  # type: ignore[return-value]

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
    for reference in list(recipe.references)[:1]:
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
