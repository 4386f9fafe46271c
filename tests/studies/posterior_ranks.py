"""Rank coverage and TARP of every method, on many problems whose truths are draws of the prior."""

from __future__ import annotations

from typing import Any

import torch

from inverse_score import solve
from inverse_score.posterior import METHODS
from inverse_score.testing.problems import ToyProblem, measured
from inverse_score.testing.scores import rank_scores

PROBLEMS, SAMPLES = 160, 9


def measure(rows: Any, samples: int) -> None:
    """PROBLEMS truths, SAMPLES draws each: p-values of the ranks of one pixel and of TARP."""
    for base in (
        ToyProblem("inpainting", "stationary", 0.1),
        ToyProblem("corner", "modes-64d", 0.2),
    ):
        truth = base.prior.sample(PROBLEMS, seed=11, dtype=torch.float32)
        y = measured(base.operator, truth, base.noise_std, seed=12)
        for name, options in choices().items():

            def run(base=base, truth=truth, y=y, options=options) -> dict:
                rec = solve(
                    y,
                    base.operator,
                    base.prior,
                    noise_std=base.noise_std,
                    num_samples=SAMPLES,
                    **options,
                )
                return rank_scores(rec.samples, truth)

            rows.measure("ranks", base.name, name, run)


def choices() -> dict[str, dict[str, Any]]:
    """The three covariances, and every other method at its defaults."""
    chosen: dict[str, dict[str, Any]] = {
        f"moment-matching, {covariance}": {
            "method": "moment-matching",
            "covariance": covariance,
            "sampler": "dpm++2m" if covariance == "jacobian" else "dpm++2m-sde",
        }
        for covariance in ("spectrum", "jacobian", "isotropic")
    }
    for name, method in METHODS.items():
        if not method.deterministic and name != "moment-matching":
            chosen[name] = {"method": name}
    return chosen
