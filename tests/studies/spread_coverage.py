"""`python tests/studies/spread_coverage.py`: is the priors' spread right on held-out people?

Square cuts of the slices of `mini-mri` and `mini-ct`, simulated measurements, posterior samples,
and the tests of `inverse-score verify`. The conformal factor is learnt on all people but one and
tried on that one; with a single person there is no "after". --save writes results/coverage.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from inverse_score.io.runs.commits import commit_bytes
from inverse_score.uncertainty import coverage
from recipes.benchmarks.definition import FOLDER
from recipes.spread_study import Outcome, Study, run
from recipes.spread_verdict import conformal_by_person

STUDIES = (
    ("brain-mri", "mri", {"acc": 4.0}, "4x"),
    ("brain-mri", "mri", {"acc": 8.0}, "8x"),
    ("body-ct", "ct", {"views": 30}, "30 views"),
)
LEVEL = 0.9
NOTE = (
    '16 samples of each 96 x 96 cut, noise std 0.02 of the prior\'s scale, `budget="fast"`. '
    "Intervals are Student's around the mean; \"samples' std\" is its estimated share of what it "
    "should be, by the ranks; mean +- factor x std covers 90 % of every cut of every person. The "
    "last column learns the factor on the other people; a new person is covered with chance "
    "people / (people + 1), which with so few people promises little."
)
HEADER = [
    "prior", "measurement", "people", "cuts", "50 % interval", "90 % interval", "samples' std",
    "TARP p", "verdict", "factor", "90 % of the left-out person, with the factor",
]  # fmt: skip


def left_out(outcome: Outcome) -> float | None:
    """Share of a person's pixels within mean +- k std, k learnt on the others; mean over people."""
    people = outcome.people or []
    if len(set(people)) < 2:
        return None
    mean, std, truth = outcome.samples.mean(0), outcome.samples.std(0), outcome.truth
    shares = []
    for name in sorted(set(people)):
        mine = torch.tensor([person == name for person in people])
        names = [person for person in people if person != name]
        learnt = conformal_by_person(mean[~mine], std[~mine], truth[~mine], names, level=LEVEL)
        within = (truth[mine] - mean[mine]).abs() <= learnt["factor"] * std[mine]
        shares.append(float(within.double().mean()))
    return sum(shares) / len(shares)


def row(prior: str, operator: str, options: dict[str, Any], label: str, count: int) -> list[str]:
    """One line of the table: `count` cuts of the held-out slices that ship."""
    study = Study(operator, num_samples=16, size=96, **options)
    outcome = run(study, prior, data=FOLDER / "data" / operator, count=count)
    verdict, people = outcome.verdict, outcome.people or []
    observed = [float(coverage(outcome.samples, outcome.truth, p).mean()) for p in (0.5, LEVEL)]
    after, factor = left_out(outcome), (outcome.conformal or {})["factor"]
    return [
        f"`{prior}`",
        label,
        str(len(set(people))),
        str(verdict.measurements),
        *(f"{100 * share:.0f} %" for share in observed),
        f"x {verdict.spread:.2f}",
        f"{verdict.p_tarp:.1g}",
        "no miscalibration found" if verdict.calibrated else "not calibrated",
        f"{factor:.2f}",
        "-" if after is None else f"{100 * after:.0f} %",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=24, help="cuts a prior")
    parser.add_argument("--save", action="store_true", help="write results/coverage.md")
    chosen = parser.parse_args()
    lines = [HEADER, ["---"] * len(HEADER)]
    lines += [row(*study, chosen.count) for study in STUDIES]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    text = f"<!-- python tests/studies/spread_coverage.py --save -->\n\n{table}\n\n{NOTE}\n"
    print(text)
    if chosen.save:
        commit_bytes(Path(__file__).parent / "results" / "coverage.md", text.encode())


if __name__ == "__main__":
    main()
