"""`python tests/studies/verification.py`: does `verify` flag what it should, and only that?

On the 8x8 Gaussian toy the posterior is known, so its samples can be drawn exactly, or with a std
that is wrong by a stated factor.
"""

from __future__ import annotations

import argparse

import torch

from inverse_score.testing.oracles import posterior_draws
from recipes.spread_verdict import Verdict, judge

FACTORS = (0.8, 1.0, 1.25)


def table(repeats: int, measurements: int, num_samples: int) -> str:
    lines = [
        f"{measurements} measurements x {num_samples} samples, level 0.1 %, {repeats} repeats",
        "",
        "| std of the samples | flagged | std as estimated | smallest detectable |",
        "|---|---|---|---|",
    ]
    for factor in FACTORS:
        found = [_verdict(factor, measurements, num_samples, seed) for seed in range(repeats)]
        flagged = sum(not v.calibrated for v in found)
        spread = sum(v.spread for v in found) / repeats
        low, high = found[0].detectable
        cells = [f"x {factor:g}", f"{flagged} of {repeats}", f"x {spread:.2f}"]
        lines.append("| " + " | ".join([*cells, f"x {low:.2f}, x {high:.2f}"]) + " |")
    return "\n".join(lines)


def _verdict(factor: float, measurements: int, num_samples: int, seed: int) -> Verdict:
    return judge(*posterior_draws(factor, measurements, num_samples, seed), seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--measurements", type=int, default=200)
    parser.add_argument("--samples", type=int, default=32)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(table(arguments.repeats, arguments.measurements, arguments.samples))


if __name__ == "__main__":
    main()
