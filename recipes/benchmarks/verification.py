"""`python -m recipes.benchmarks.verification`: does `verify` flag what it should, and only that?

On the 8x8 Gaussian toy the posterior is known, so its samples can be drawn exactly, or with a std
that is wrong by a stated factor.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from inverse_score.randomness import Noise
from inverse_score.sde import VPSDE
from operators import Mask

from ..spread_verdict import Verdict, judge
from .toys import half_mask, stationary

FACTORS = (0.8, 1.0, 1.25)
NOISE_STD = 0.1


def verdict(factor: float, measurements: int, num_samples: int, seed: int) -> Verdict:
    """judge of posterior samples whose std is `factor` times the right one."""
    prior = stationary(VPSDE())
    like = torch.empty(measurements, *prior.mean.shape, dtype=torch.float64)
    noise = Noise(seed, range(measurements))
    truth = prior.mean + _correlated(noise(like, 0), prior.cov)
    operator = Mask(half_mask(), image_shape=tuple(prior.mean.shape))
    y = operator(truth) + NOISE_STD * half_mask() * noise(like, 1)
    posterior = prior.posterior(y, operator, NOISE_STD)
    draws = torch.stack([noise(like, 2 + s) for s in range(num_samples)])
    spread = _correlated(draws.flatten(0, 1), posterior.cov[0]).reshape(draws.shape)
    return judge(posterior.mean + factor * spread, truth, seed=seed)


def _correlated(z: Tensor, cov: Tensor) -> Tensor:
    """Standard normal draws (N, *event) given this covariance."""
    return (z.flatten(1) @ torch.linalg.cholesky(cov).T).reshape(z.shape)


def table(repeats: int, measurements: int, num_samples: int) -> str:
    lines = [
        f"{measurements} measurements x {num_samples} samples, level 0.1 %, {repeats} repeats",
        "",
        "| std of the samples | flagged | std as estimated | smallest detectable |",
        "|---|---|---|---|",
    ]
    for factor in FACTORS:
        found = [verdict(factor, measurements, num_samples, seed) for seed in range(repeats)]
        flagged = sum(not v.calibrated for v in found)
        spread = sum(v.spread for v in found) / repeats
        low, high = found[0].detectable
        cells = [f"x {factor:g}", f"{flagged} of {repeats}", f"x {spread:.2f}"]
        lines.append("| " + " | ".join([*cells, f"x {low:.2f}, x {high:.2f}"]) + " |")
    return "\n".join(lines)


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
