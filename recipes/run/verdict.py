"""What a result says about itself: does the prior know such images, and is its std checked?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inverse_score.fit import denoising_fit, fit_check
from inverse_score.io.runs.results import RunFolder, Unit
from inverse_score.uncertainty import student_quantile

from .options import CT

if TYPE_CHECKING:
    from inverse_score.prior import Prior
    from inverse_score.reconstruction import Reconstruction

    from ..problem import Problem
    from .plan import Plan, Task

# Held-out standard deviations beyond which a scan's denoising error is an alarm.
FIT_LIMIT = 4.0
# Predictions of the withheld lines: the least p-value they can give is 1 / 20.
WITHHELD_DRAWS = 19
# Of these at once.
WITHHELD_BATCH = 4
# Relative difference of acceleration or views up to which a conformal factor is another scan's too.
NEAR = 0.25


@dataclass(frozen=True)
class StdScale:
    """factor: what the samples' std is multiplied by; checked: whether a conformal study did."""

    factor: float
    checked: bool
    words: str


def std_scale(plan: Plan, scan: int) -> StdScale:
    """The conformal factor that `verify --store` left in the prior for this operator, if it fits.

    Stored is k of mean +- k s, s the std of the study's n samples; an exact sampler of Gaussian
    marginals has k = t sqrt(1 + 1/n), t Student's quantile (`uncertainty.coverage`). factor is
    the ratio of the two, so that it serves any number of samples.
    """
    entry = plan.prior.card.get("calibration", {}).get(plan.request.operator)
    if entry is None:
        return StdScale(1.0, False, "std not checked for this prior and operator")
    other = _differences(plan, scan, entry.get("study", {}))
    if other:
        return StdScale(
            1.0, False, f"std not checked for this scan: the check of the prior {other}"
        )
    level, studied = entry["level"], entry.get("study", {}).get("num_samples", 16)

    def exact(n: int) -> float:
        return student_quantile(level, n - 1) * math.sqrt(1 + 1 / n)

    factor, n = entry["factor"] / exact(studied), max(plan.request.samples, 2)
    return StdScale(
        factor,
        True,
        f"std scaled by {factor:.3g}: mean +- {exact(n):.2f} std covers {level:.0%} of each image "
        f"of a new person with chance {entry['confidence']:.2f} ({entry['people']} people, "
        f"{entry['images']} images{_setting(entry.get('study', {}))})",
    )


def _differences(plan: Plan, scan: int, study: dict[str, Any]) -> str:
    """How a study's setting differs from this scan's, in words; "" where it does not."""
    r, recipe = plan.request, plan.tasks[scan].recipe
    here = {"acc": recipe.achieved}
    if r.operator == CT and recipe.mask is not None:
        here = {"views": float(recipe.mask.sum())}
    found = [
        f"was at {study[key]:g} {_NAMES[key]}, this is at {value:.3g}"
        for key, value in here.items()
        if key in study and abs(value / study[key] - 1) > NEAR
    ]
    for key, value in {"method": r.method, "budget": plan.budget}.items():
        if key in study and study[key] != value:
            found.append(f"was of {key} {study[key]}, this is of {value}")
    return ", ".join(found)


_NAMES = {"acc": "times acceleration", "views": "views"}


def _setting(study: dict[str, Any]) -> str:
    return f", noise {study['noise_std']:g} of the prior's scale" if "noise_std" in study else ""


def fit_attributes(plan: Plan, scan: int, folder: RunFolder) -> dict[str, Any]:
    """Whether the prior knows such images, in words: from what the middle slice's unit found."""
    unit = Unit(scan, plan.tasks[scan].middle, 0)
    facts = folder.load(unit)[1] if folder.done(unit) else {}
    found: dict[str, Any] = {}
    if "fit_z" in facts:
        found["fit_ok"] = abs(facts["fit_z"]) <= FIT_LIMIT
        found["fit"] = (
            f"prior {'fits' if found['fit_ok'] else 'may not fit'}: it denoises a sample with "
            f"{facts['fit_ratio']:.2g} times its error on held-out images of its kind "
            f"({facts['fit_z']:+.1f} of their deviations, noise level {facts['fit_level']:.2g})"
        )
    if "withheld_p" in facts:
        # The least that so many predictions can give: farther off than every one of them.
        found["withheld_ok"] = facts["withheld_p"] > 1 / (facts["withheld_draws"] + 1) + 1e-9
        found["withheld"] = (
            f"{facts['withheld_lines']} withheld lines "
            f"{'are predicted' if found['withheld_ok'] else 'are NOT predicted'}: squared error "
            f"{facts['withheld_ratio']:.2g} times what spread and noise explain "
            f"(p {facts['withheld_p']:.2g})"
        )
    return found


def misfit_lines(slices: list[dict[str, Any]]) -> list[str]:
    """What `solve` warned of, a line a slice: samples that do not explain their data."""
    return [
        f"  slice {entry['slice']}: {text.removeprefix('item 0: ')}"
        for entry in slices
        for text in dict.fromkeys(entry.get("warnings", []))
    ]


def fit_facts(problem: Problem, rec: Reconstruction, prior: Prior) -> dict[str, Any]:
    """Denoising error of a sample over that in the prior's card, at its worst level.

    {} where the card has none.
    """
    if "error_mean" not in prior.card.get("error_spectrum", {}):
        return {}
    x = rec.samples[0]  # type: ignore[index]
    u = x / problem.to_units(x.new_ones(x.shape))
    levels, ratio, z = denoising_fit(u, prior)
    worst = int(z[:, 0].abs().argmax())
    return {
        "fit_level": float(levels[worst]),
        "fit_ratio": float(ratio[worst, 0]),
        "fit_z": float(z[worst, 0]),
    }


def withheld_facts(problem: Problem, plan: Plan, task: Task) -> dict[str, Any]:
    """How well a tenth of the measured lines, withheld, are predicted (`fit.fit_check`)."""
    axis, protected = task.recipe.lines  # type: ignore[misc]
    report = fit_check(
        problem.y,
        problem.operator,
        plan.prior,
        noise_std=problem.noise_std,
        axis=axis,
        protected=protected,
        num_samples=WITHHELD_DRAWS,
        batch_size=WITHHELD_BATCH,
        **plan.solving(),
    )
    return {
        "withheld_ratio": float(report.ratio[0]),
        "withheld_p": float(report.p_value[0]),
        "withheld_lines": len(report.lines),
        "withheld_draws": WITHHELD_DRAWS,
    }
