"""Every posterior sampler against posteriors known in closed form.

    python tests/studies/posteriors.py [--only targets methods peers ...] [--match "mri,"]

Rows are kept in results/posteriors.jsonl as they finish, so pieces add up; --again measures anew.
The tables go to results/posteriors.md, the picture to examples/pictures/posteriors.png, and
--write-table writes the table behind method="auto".
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import posterior_cost
import posterior_picture
import posterior_ranks
import posterior_report
from inverse_score.posterior import METHODS
from inverse_score.posterior.auto import table as auto_table
from inverse_score.testing.affine import exact_scores
from inverse_score.testing.problems import (
    COVARIANCES,
    NOISES,
    ToyProblem,
    gaussian_problems,
    mixture_problems,
)
from inverse_score.testing.scores import gaussian_scores, sampled_scores, solved
from inverse_score.testing.toys import kl_floor, mode_report, sliced_wasserstein
from posterior_peers import peers

HERE = Path(__file__).parent
RESULTS = HERE / "results"
FLOOR_SAMPLES, SLOW_SAMPLES = 2048, 512
# Stand-ins for the deterministic baselines are elsewhere: a point has no spread to compare.
SAMPLING = [name for name, method in METHODS.items() if not method.deterministic]
HEADLINE = {
    "spectrum": {"method": "moment-matching", "covariance": "spectrum"},
    "jacobian": {"method": "moment-matching", "covariance": "jacobian"},
    "isotropic": {"method": "moment-matching", "covariance": "isotropic"},
    "jacobian, SDE": {
        "method": "moment-matching",
        "covariance": "jacobian",
        "sampler": "dpm++2m-sde",
    },
}
# Fewer calls, and CG stopped at a residual of 0.3 % of a posterior std: what scans can afford.
# Scans are far from stationary: on training people eta 2 is worth 1.4 dB over 1; eta 3 gains 0.1 dB
# more in CT, nothing in MRI, and its samples lie closer together than their mean to the truth.
SHORT = {
    f"spectrum, {steps} steps": {
        **HEADLINE["spectrum"],
        "steps": steps,
        "tol": 0.003,
        "sampler_options": {"eta": 2.0, "balanced": True},
    }
    for steps in (20, 28)
}
SPREAD_OF_PROBLEMS = [
    ToyProblem("inpainting", "stationary", 0.1),
    ToyProblem("inpainting", "stationary", 0.01),
    ToyProblem("inpainting", "nonstationary", 0.1),
    ToyProblem("mri", "stationary", 0.1),
    ToyProblem("radon", "stationary", 0.1),
    ToyProblem("blur", "stationary", 0.1),
]


class Rows:
    """Measured rows, one JSON line each, keyed by section, problem and method."""

    def __init__(self, path: Path, again: bool, match: str = ""):
        self.path, self.again, self.match = path, again, match
        path.parent.mkdir(exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows = {self._key(row): row for row in map(json.loads, lines)}

    @staticmethod
    def _key(row: dict[str, Any]) -> tuple[str, str, str]:
        return row["section"], row["problem"], row["method"]

    def measure(self, section: str, problem: str, method: str, run: Callable[[], dict]) -> None:
        """Add the row unless it is there already; a failure is a row that says so."""
        key = (section, problem, method)
        if (key in self.rows and not self.again) or self.match not in problem:
            return
        began = time.perf_counter()
        try:
            values = run()
        except (ValueError, RuntimeError, TypeError, AttributeError) as error:
            values = {"failed": f"{type(error).__name__}: {error}"[:160]}
        row = {"section": section, "problem": problem, "method": method, **values}
        row["seconds"] = round(time.perf_counter() - began, 1)
        self.rows[key] = row
        print("  ".join(f"{k} {_shown(v)}" for k, v in row.items() if k != "section"), flush=True)
        # Appended, so that pieces may run side by side; of two rows the later one counts.
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def of(self, section: str) -> list[dict[str, Any]]:
        return [row for row in self.rows.values() if row["section"] == section]


def targets(rows: Rows, samples: int) -> None:
    """The covariances of moment matching, on every Gaussian problem.

    "isotropic" without sampling error; "spectrum" and "jacobian", which look at the data for more
    than their mean, by `samples` samples. Each by samples on one problem, to check exact moments.
    """
    for problem in gaussian_problems():
        for name, options in HEADLINE.items():

            def run(problem=problem, name=name, options=options) -> dict:
                if name != "isotropic":
                    return sampled(problem, samples, **options)
                return {**exact_scores(problem, options), "floor": floor(problem)}

            rows.measure("targets", problem.name, name, run)
    for name, options in HEADLINE.items():

        def check(options=options) -> dict:
            return sampled(SPREAD_OF_PROBLEMS[0], samples, **options)

        rows.measure("sampled", SPREAD_OF_PROBLEMS[0].name, name, check)


def short(rows: Rows, samples: int) -> None:
    """The spectrum with fewer steps and digits, by samples."""
    for problem in gaussian_problems():
        for name, options in SHORT.items():

            def run(problem=problem, options=options) -> dict:
                return sampled(problem, FLOOR_SAMPLES, **options)

            rows.measure("targets", problem.name, name, run)


def methods(rows: Rows, samples: int) -> None:
    """Every method at its defaults, exactly where it is affine; its paper's settings on one."""
    for problem in SPREAD_OF_PROBLEMS:
        for name in SAMPLING:

            def run(problem=problem, name=name) -> dict:
                try:
                    return {**exact_scores(problem, {"method": name}), "floor": floor(problem)}
                except (RuntimeError, AttributeError):
                    return sampled(problem, SLOW_SAMPLES, method=name)

            rows.measure("methods", problem.name, name, run)
    for name in SAMPLING:
        for preset in METHODS[name].presets:

            def paper(name=name, preset=preset) -> dict:
                problem = SPREAD_OF_PROBLEMS[0]
                return sampled(problem, SLOW_SAMPLES, method=name, preset=preset)

            label = f"{name}, {preset}"
            rows.measure("methods", SPREAD_OF_PROBLEMS[0].name, label, paper)


def sampled(problem: ToyProblem, count: int, **options: Any) -> dict[str, Any]:
    """Scores, floor and cost of `count` samples."""
    return {**sampled_scores(problem, count, **options), "floor": floor(problem)}


def floor(problem: ToyProblem) -> float:
    """The KL that FLOOR_SAMPLES exact samples score."""
    return kl_floor(problem.truth.numel(), FLOOR_SAMPLES)


def others(rows: Rows, samples: int) -> None:
    """deepinv and azula on the problems of the methods' table."""
    for problem in SPREAD_OF_PROBLEMS:
        for name, peer in peers(problem).items():

            def run(problem=problem, peer=peer) -> dict:
                x, nfe, vjps = peer(SLOW_SAMPLES)
                cost = {"nfe": nfe, "vjps": vjps, "forward_equivalents": nfe + 2 * vjps}
                return {**gaussian_scores(problem, x), **cost, "floor": floor(problem)}

            rows.measure("peers", problem.name, name, run)


def mixtures(rows: Rows, samples: int) -> None:
    """Posteriors with several modes: sliced Wasserstein distance and mode weights."""
    count = min(samples, 512)
    for problem in mixture_problems():
        exact = problem.exact_samples(2 * count)

        def score(x: Tensor, exact=exact, problem=problem) -> dict:
            other = sliced_wasserstein(exact[:count], exact[count:])
            wasserstein = sliced_wasserstein(x, exact[:count])
            weights = mode_weights(problem, x)
            gap = 0.5 * (weights - problem.posterior.weights[0]).abs().sum()
            stray = mode_report(x, problem.prior).stray if problem.covariance == "modes-2d" else 0.0
            floor = {"wasserstein_floor": other, "stray": stray}
            return {"wasserstein": wasserstein, "mode_error": float(gap), **floor}

        for name in ("exact", *HEADLINE, *[m for m in SAMPLING if m != "moment-matching"]):

            def run(problem=problem, name=name, score=score, exact=exact) -> dict:
                if name == "exact":
                    return {**score(exact[count:]), "nfe": 0, "vjps": 0}
                options = HEADLINE.get(name, {"method": name})
                x, cost = solved(problem, count, **options)
                return {**score(x), **cost}

            rows.measure("mixtures", problem.name, name, run)


def mode_weights(problem: ToyProblem, x: Tensor) -> Tensor:
    """Mean responsibility of each component of the prior for the samples, (K,)."""
    prior = problem.prior
    joint = prior._log_joint(*prior._project(x.double(), None), x.double())
    return torch.softmax(joint, 1).mean(0)


def write_auto_table(rows: Rows) -> None:
    """For each budget and operator the cheapest method within its bound, else the most exact."""
    path = HERE.parents[1] / "inverse_score" / "assets" / "auto_methods.json"
    measured = [row for row in rows.of("targets") if "excess" in row]
    options = {**{name: {**o, "steps": 40} for name, o in HEADLINE.items()}, **SHORT}
    chosen = posterior_report.auto_table(measured, options)
    path.write_text(json.dumps(chosen, indent=2) + "\n")
    auto_table.cache_clear()


SECTIONS: dict[str, Callable[[Rows, int], None]] = {
    "targets": targets,
    "short": short,
    "methods": methods,
    "peers": others,
    "mixtures": mixtures,
    "ranks": posterior_ranks.measure,
    "cost": posterior_cost.measure,
}


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    everything = [*SECTIONS, "picture"]
    parser.add_argument("--only", nargs="+", choices=everything, default=everything)
    parser.add_argument("--samples", type=int, default=16384)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--match", default="", help="only problems whose name holds this text")
    parser.add_argument("--write-table", action="store_true")
    options = parser.parse_args(None if arguments is None else list(arguments))
    rows = Rows(RESULTS / "posteriors.jsonl", options.again, options.match)
    for name in options.only:
        if name == "picture":
            posterior_picture.draw(HERE.parents[1] / "examples" / "pictures" / "posteriors.png")
        else:
            SECTIONS[name](rows, options.samples)
    if options.write_table:
        write_auto_table(rows)
    text = posterior_report.report(rows, NOISES, COVARIANCES)
    (RESULTS / "posteriors.md").write_text(text)
    print(text)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
