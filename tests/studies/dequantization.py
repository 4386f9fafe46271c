"""Likelihood training on digits: uniform against variational dequantization.

    python tests/studies/dequantization.py --data DIR [--steps 800] [--save]

DIR is what `inverse-score prepare digits` wrote: MNIST, here averaged over 2 x 2 pixels to 14 x 14
of 256 levels. A score network is trained by the likelihood bound of Song, Durkan et al. 2021 on
uniformly dequantized digits; from there it goes on twice for as many steps on the same pictures,
once as before and once together with a dequantization flow. Reported, on the held-out digits: the
bound, and the bits/dim of the probability flow ODE, both truncated at t = 1e-5.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from inverse_score.dequantization import (
    DequantizationFlow,
    dequantized_bits,
    fit,
    likelihood_bound,
    spread,
)
from inverse_score.likelihood import log_likelihood
from inverse_score.prior import Prior
from inverse_score.randomness import Noise
from inverse_score.testing.pixel_mixture import LEVELS, new_prior
from recipes.priors.digits import load_digits

RESULTS = Path(__file__).parent / "results" / "dequantization.md"


def digits(folder: Path) -> tuple[Tensor, Tensor]:
    """(train, held out), (B, 1, 14, 14) of whole numbers 0 .. 255."""
    train, held_out = (
        functional.avg_pool2d(255 * load_digits(folder / use)[0], 2).round()
        for use in ("train", "held_out")
    )
    return train, held_out


def train(
    x: Tensor, prior: Prior, flow: DequantizationFlow | None, steps: int, lr: float, seed: int
) -> None:
    """Train the prior by the likelihood bound, and with it the flow."""
    network: nn.Module = prior.network  # type: ignore[assignment]
    parameters = [*network.parameters(), *([] if flow is None else flow.parameters())]
    fit(x, partial(likelihood_bound, prior), LEVELS, parameters=parameters, flow=flow,
        steps=steps, batch_size=128, lr=lr, seed=seed)  # fmt: skip


@torch.no_grad()
def bound_bits(x: Tensor, prior: Prior, flow: DequantizationFlow | None, draws: int) -> Tensor:
    """Bits/dim by the bound, (B,), a mean over draws."""
    found = [
        dequantized_bits(x, partial(likelihood_bound, prior), LEVELS, Noise(100 + k, range(len(x))),
                         flow=flow) for k in range(draws)
    ]  # fmt: skip
    return torch.stack(found).mean(0)


def ode_bits(x: Tensor, prior: Prior, flow: DequantizationFlow | None, probes: int) -> Tensor:
    """Bits/dim by the probability flow, (B,)."""
    with torch.no_grad():
        data, log_q = spread(x, LEVELS, Noise(7, range(len(x))), flow)
    logp = log_likelihood(data, prior, trace="hutchinson", probes=probes, rtol=1e-4, atol=1e-4)
    return (log_q - logp) / (x[0].numel() * math.log(2)) + math.log2(LEVELS)


def table(data: Path, steps: int, images: int, draws: int = 20, probes: int = 2) -> list[str]:
    """Rows of both dequantizations; the last, their paired difference with its standard error.

    Bounds and likelihoods are of the first `images` held-out digits.
    """
    x, held_out = digits(data)
    held_out = held_out[:images]
    rows = ["| dequantization | bound, bits/dim | ODE, bits/dim | training, s |",
            "|---|---|---|---|"]  # fmt: skip
    common, kept = new_prior(x), []
    train(x, common, None, steps, lr=2e-3, seed=0)
    for name in ("uniform", "variational"):
        torch.manual_seed(1)
        prior = copy.deepcopy(common)
        flow = DequantizationFlow(1, LEVELS, width=16, couplings=2) if name != "uniform" else None
        start = time.process_time()
        train(x, prior, flow, steps, lr=1e-3, seed=1)
        seconds = time.process_time() - start
        pair = (bound_bits(held_out, prior, flow, draws), ode_bits(held_out, prior, flow, probes))
        kept.append(pair)
        rows.append(f"| {name} | {_mean(pair[0])} | {_mean(pair[1])} | {seconds:.0f} |")
        print(rows[-1], flush=True)
    gaps = [after - before for before, after in zip(*kept, strict=True)]
    rows.append(f"| variational - uniform | {_mean(gaps[0])} | {_mean(gaps[1])} | |")
    return rows


def _mean(values: Tensor) -> str:
    return f"{values.mean():.3f} +- {values.std() / math.sqrt(len(values)):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the digits")
    parser.add_argument("--steps", type=int, default=800, help="of each stage")
    parser.add_argument("--images", type=int, default=300, help="held-out digits to score")
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.name}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = table(arguments.data, arguments.steps, arguments.images)
    text = (
        "# Dequantization of digits\n\n"
        f"By `python tests/studies/dequantization.py --data DIR --steps {arguments.steps} "
        f"--save`: {arguments.images} held-out digits of 14 x 14, both columns truncated at t = "
        "1e-5, +- one standard error over the digits; the last row is paired. From a common "
        f"network of {arguments.steps} steps both go on for as many.\n\n" + "\n".join(rows) + "\n"
    )
    print(text)
    if arguments.save:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(text)


if __name__ == "__main__":
    main()
