"""Likelihood training on digits: uniform against variational dequantization.

    python -m recipes.benchmarks.dequantization [--steps 1000] [--save]

scikit-learn's 1797 digits (8 x 8, 17 levels), every sixth held out. Two score networks of one
size are trained by the likelihood bound of Song, Durkan et al. 2021 for as many steps on as many
images, one on uniformly dequantized digits and one together with a dequantization flow. Reported,
on the held-out digits: the bound, and the bits/dim of the probability flow ODE. Chance is
log2 17 = 4.087 bits/dim.
"""

from __future__ import annotations

import argparse
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
from inverse_score.sde import VPSDE

LEVELS = 17
RESULTS = Path(__file__).parent / "results" / "dequantization.md"


class DigitScore(nn.Module):
    """eps_hat(x, t) of 8 x 8 images: a residual network of dense layers."""

    def __init__(self, width: int = 384, blocks: int = 3):
        super().__init__()
        self.first = nn.Linear(64 + 32, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.SiLU(), nn.Linear(width + 32, width), nn.SiLU(),
                          nn.Linear(width, width)) for _ in range(blocks)
        )  # fmt: skip
        self.last = nn.Linear(width, 64)
        self.register_buffer("frequencies", 2.0 ** torch.linspace(-2, 4, 16))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        # ln of the noise-to-signal of VPSDE, which spans -6 to 5.
        integral = 0.1 * t + 9.95 * t**2
        log_ratio = 0.5 * torch.log(torch.expm1(integral))
        phase = log_ratio[:, None] * self.frequencies / 4
        features = torch.cat([phase.sin(), phase.cos()], dim=1)
        h = self.first(torch.cat([x.flatten(1), features], dim=1))
        for block in self.blocks:
            silu, dense, again, out = block  # type: ignore[misc]
            h = h + out(again(dense(torch.cat([silu(h), features], dim=1))))
        return self.last(functional.silu(h)).reshape(x.shape)


def digits() -> tuple[Tensor, Tensor]:
    """(train, held out), (B, 1, 8, 8) of whole numbers 0 .. 16."""
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    images = torch.tensor(load_digits().images, dtype=torch.float32)[:, None]
    held_out = torch.arange(len(images)) % 6 == 0
    return images[~held_out], images[held_out]


def train(x: Tensor, steps: int, flow: DequantizationFlow | None, seed: int = 0) -> Prior:
    """A prior of the digits in [0, 1] by the likelihood bound, and with it the flow."""
    torch.manual_seed(seed)
    network = DigitScore()
    # t_min 1e-4: sigma 0.003 in units of half the range, a twentieth of a level.
    prior = Prior(network, VPSDE(), output="eps", event_shape=(1, 8, 8), range=(0.5, 0.5),
                  t_min=1e-4)  # fmt: skip
    parameters = [*network.parameters(), *([] if flow is None else flow.parameters())]
    fit(x, partial(likelihood_bound, prior), LEVELS, parameters=parameters, flow=flow,
        steps=steps, batch_size=128, lr=2e-3, seed=seed)  # fmt: skip
    network.eval()
    return prior


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


def table(steps: int, draws: int = 40, probes: int = 2, images: int = 120) -> list[str]:
    """Rows of both dequantizations; the last, their paired difference with its standard error.

    The ODE's likelihoods are of the first `images` held-out digits.
    """
    x, held_out = digits()
    rows = ["| dequantization | bound, bits/dim | ODE, bits/dim | training, s |",
            "|---|---|---|---|"]  # fmt: skip
    kept = []
    for name in ("uniform", "variational"):
        torch.manual_seed(1)
        flow = (
            DequantizationFlow(1, LEVELS, width=24, couplings=2) if name == "variational" else None
        )
        start = time.process_time()
        prior = train(x, steps, flow)
        seconds = time.process_time() - start
        few = held_out[:images]
        pair = (bound_bits(held_out, prior, flow, draws), ode_bits(few, prior, flow, probes))
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
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.name}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = table(arguments.steps)
    text = (
        "# Dequantization of digits\n\n"
        f"By `python -m recipes.benchmarks.dequantization --steps {arguments.steps} --save`; "
        "held-out digits, +- one standard error over them.\n\n" + "\n".join(rows) + "\n"
    )
    print(text)
    if arguments.save:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(text)


if __name__ == "__main__":
    main()
