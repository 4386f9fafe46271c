"""Tables of the samplers and the likelihood on priors with a known law.

    python -m recipes.benchmarks.samplers [--tables quality,mixture,...] [--out FILE]

On Gaussian priors the laws of fixed-step samplers are propagated exactly (see moments.py),
so those numbers have no Monte Carlo error.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inverse_score.likelihood import log_likelihood
from inverse_score.prior import Prior
from inverse_score.randomness import Noise
from inverse_score.sampling import SAMPLERS, counted, end_ratio, make_grid, start
from inverse_score.sde import SDE, VESDE, VPSDE, SubVPSDE

from .moments import exact_kl, exact_moments
from .orders import COUNTS, strong_errors
from .references import AZULA, azula_sampler, released, released_times
from .toys import (
    excess_kl,
    grid_of_modes,
    mode_report,
    nonstationary,
    sliced_wasserstein,
    stationary,
)

BUDGETS = (8, 12, 20, 35, 50, 100, 1000)
SDES: dict[str, SDE] = {"VP": VPSDE(), "sub-VP": SubVPSDE(), "VE(50)": VESDE()}
TWO_CALLS = ("heun", "stochastic-rk")
AFFINE = (
    "dpm++2m",
    "dpm++2m-sde",
    "heun",
    "stochastic-rk",
    "ddim",
    "euler-maruyama",
    "ancestral",
    "reverse-diffusion",
)
# Theoretical weak order, and strong order (of the deterministic ones: order of the ODE's error).
ORDERS = {
    "euler-maruyama": (1, 1.0),
    "reverse-diffusion": (1, 1.0),
    "ancestral": (1, 1.0),
    "stochastic-rk": (2, 1.5),
    "dpm++2m-sde": (2, 1.0),
    "ddim": (1, 1.0),
    "dpm++2m": (2, 2.0),
    "heun": (2, 2.0),
}


class BatchNoise:
    """Fast noise for many small items; what it costs to be reproducible item by item is measured
    apart (table_noise)."""

    def __init__(self, seed: int = 0):
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, like: Tensor, step: int, stream: int = 0) -> Tensor:
        return torch.randn(like.shape, generator=self.generator, dtype=like.dtype)

    def uniform(self, like: Tensor, step: int, stream: int = 0) -> Tensor:
        return torch.rand(like.shape, generator=self.generator, dtype=like.dtype)


def markdown(title: str, note: str, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [f"### {title}", "", note, "", "| " + " | ".join(head) + " |"]
    lines.append("|" + "---|" * len(head))
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return "-" if math.isnan(value) else f"{value:.3g}" if abs(value) >= 100 else f"{value:.4f}"


def grid_for(prior: Prior, nfe: int, calls: int = 1) -> list[float]:
    """The default grid whose cost is `nfe` calls (one less where two calls a step do not fit)."""
    steps = nfe if calls == 1 else (nfe - 1) // calls + 1
    return make_grid(prior.sde, steps, end_ratio=end_ratio(prior))


def draw(prior: Prior, num: int, name: str, times: Sequence[float], **options: Any):
    """(samples, calls of the prior) from the terminal law."""
    watched, counter = counted(prior)
    noise: Any = BatchNoise()
    xT = start(prior, (num, *prior.event_shape), noise)  # type: ignore[misc]
    return SAMPLERS[name](watched, xT, times, noise, **options), counter.nfe


def table_orders() -> str:
    """Weak order on a Gaussian, strong order on the mixture."""
    rows = []
    for name, (weak, strong) in ORDERS.items():
        prior = stationary(VPSDE())
        errors = []
        for steps in (50, 100, 200, 800):
            grid = make_grid(prior.sde, steps + 1, end_ratio=0.05, start_ratio=5.0)
            errors.append(exact_moments(prior, name, grid)[1])
        miss = [(e - errors[-1]).abs().max().item() for e in errors[:-1]]
        paths = strong_errors(name, VPSDE(), 64)
        rows.append(
            [name, weak, math.log2(miss[1] / miss[2]), strong, _slope(paths), paths[0], paths[-1]]
        )
    return markdown(
        "Order of convergence (VP)",
        "Weak: variance on the Gaussian at 100 and 200 steps, exact, against 800. Strong: one "
        "Brownian path for all step sizes on the 25-mode mixture, fitted over "
        f"{', '.join(map(str, COUNTS))} steps, errors in units of sigma.",
        [
            "method",
            "weak: theory",
            "weak: seen",
            "strong: theory",
            "strong: seen",
            f"error at {COUNTS[0]}",
            f"error at {COUNTS[-1]}",
        ],
        rows,
    )


def _slope(errors: Sequence[float]) -> float:
    x = torch.tensor(COUNTS, dtype=torch.float64).log()
    y = torch.tensor(errors, dtype=torch.float64).log()
    return -((x - x.mean()) * (y - y.mean())).sum().div((x - x.mean()).square().sum()).item()


def table_quality(most: int = 1000) -> str:
    """Excess KL of every affine sampler, budget and SDE on both Gaussians, exactly."""
    parts = []
    for toy in (stationary, nonstationary):
        budgets = [n for n in BUDGETS if n <= most and (n <= 100 or toy is stationary)]
        rows = [
            [label, name] + [exact_kl(prior, name, grid_for(prior, n, calls)) for n in budgets]
            for label, sde in SDES.items()
            for prior in [toy(sde)]
            for name in AFFINE
            for calls in [2 if name in TWO_CALLS else 1]
        ]
        parts.append(
            markdown(
                f"KL to the {toy.__name__} 8 x 8 Gaussian, nats, by calls of the prior",
                "Exact moments; from the SDE's own terminal law; one grid rule, uniform in log-SNR "
                "from T to the prior's smallest scale. Methods of two calls a step use one less.",
                ["SDE", "sampler", *map(str, budgets)],
                rows,
            )
        )
    return "\n".join(parts)


def table_adaptive(num: int = 4096) -> str:
    """Adaptive methods and Langevin samplers on the stationary Gaussian, by sampling."""
    cases: list[tuple[str, dict[str, Any], int]] = [
        ("ode", {"rtol": 1e-2, "atol": 1e-2}, 2),
        ("ode", {"rtol": 1e-3, "atol": 1e-3}, 2),
        ("ode", {"rtol": 1e-5, "atol": 1e-5}, 2),
        ("adaptive-sde", {"rtol": 0.5}, 2),
        ("adaptive-sde", {"rtol": 0.1}, 2),
        ("adaptive-sde", {"rtol": 0.02}, 2),
        ("annealed-langevin", {"inner": 5}, 21),
        ("annealed-langevin", {"inner": 20}, 21),
        ("langevin", {}, 101),
    ]
    rows = []
    for label, sde in SDES.items():
        prior = stationary(sde)
        for name, options, steps in cases:
            grid = make_grid(sde, steps, end_ratio=end_ratio(prior))
            x, nfe = draw(prior, num, name, grid, **options)
            shown = ", ".join(f"{k} {v}" for k, v in options.items())
            rows.append([label, name, shown, nfe, excess_kl(x, prior.mean, prior.cov)])
    return markdown(
        "Adaptive and Langevin samplers, stationary Gaussian",
        f"Excess KL in nats of {num} samples (scatter about 0.008); calls as counted.",
        ["SDE", "sampler", "options", "calls", "excess KL"],
        rows,
    )


def table_mixture(num: int = 4096) -> str:
    """Sliced Wasserstein distance and mode weights on the 5 x 5 grid of modes."""
    budgets = BUDGETS[:-1]
    rows = []
    for label, sde in SDES.items():
        prior = grid_of_modes(sde)
        truth = prior.sample(num, seed=1)
        for name in AFFINE:
            row: list[Any] = [label, name]
            for n in budgets:
                grid = grid_for(prior, n, 2 if name in TWO_CALLS else 1)
                x, _ = draw(prior, num, name, grid)
                report = mode_report(x, prior)
                row.append(f"{sliced_wasserstein(x, truth):.3f} / {report.error:.3f}")
            rows.append([*row, f"{report.spread:.3f}"])
    exact = prior.sample(num, seed=2)
    floor = f"{sliced_wasserstein(exact, truth):.3f} / {mode_report(exact, prior).error:.3f}"
    return markdown(
        "25 modes: sliced Wasserstein distance / error of the mode weights, by calls",
        f"{num} samples; exact samples score {floor} (2-D, 128 directions; total variation of the "
        "weights). Last column: std within modes at 100 calls over the true one.",
        ["SDE", "sampler", *map(str, budgets), "spread"],
        rows,
    )


def table_corrector(num: int = 4096) -> str:
    """Predictor alone against predictor and corrector for the same number of calls."""
    rows = []
    for label, sde in SDES.items():
        prior = stationary(sde)
        for predictor in ("reverse-diffusion", "ancestral", "dpm++2m-sde"):
            for corrector, cost in (("none", 1), ("langevin", 2), ("unadjusted-hmc", 5)):
                row: list[Any] = [label, predictor, corrector]
                for n in (35, 100):
                    grid = grid_for(prior, n, cost)
                    x, nfe = draw(prior, num, "pc", grid, predictor=predictor, corrector=corrector)
                    row += [nfe, excess_kl(x, prior.mean, prior.cov)]
                rows.append(row)
    return markdown(
        "What a corrector buys at equal cost, stationary Gaussian",
        f"Excess KL in nats of {num} samples (scatter about 0.008); snr 0.16.",
        ["SDE", "predictor", "corrector", "calls", "excess KL", "calls", "excess KL"],
        rows,
    )


def table_likelihood(num: int = 16) -> str:
    """Errors of the exact and the stochastic trace against the closed form."""
    rows = []
    for label, sde in SDES.items():
        for toy in (stationary, nonstationary, grid_of_modes):
            prior = toy(sde)
            x = prior.sample(num, t=prior.t_min)
            truth, bits = prior.log_prob(x, prior.t_min), x[0].numel() * math.log(2)
            exact, info = log_likelihood(x, prior, return_info=True)
            error = (exact - truth).abs() / bits
            about, more = log_likelihood(
                x, prior, trace="hutchinson", probe="gaussian", probes=16, return_info=True
            )
            z = (about - truth) / more["standard_error"]
            rows.append(
                [
                    label,
                    toy.__name__,
                    info["nfe"],
                    error.mean().item(),
                    error.max().item(),
                    more["standard_error"].mean().item() / bits,
                    z.abs().max().item(),
                ]
            )
    return markdown(
        "Likelihood at t_min against the closed form",
        f"{num} draws; errors in bits / dim; Hutchinson with 16 Gaussian probes, its own standard "
        "error and the largest error in units of it. The mixture's error is the terminal law's.",
        [
            "SDE",
            "prior",
            "calls",
            "mean error",
            "largest",
            "Hutchinson's standard error",
            "largest error / it",
        ],
        rows,
    )


class _Nothing:
    """Noise that costs nothing."""

    def __call__(self, like: Tensor, step: int, stream: int = 0) -> Tensor:
        return like


def _best(function: Callable[[], Any], repeats: int = 5) -> float:
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        found.append(time.perf_counter() - began)
    return min(found)


def table_overhead() -> str:
    """Time a step of the sampler itself, against a network of 50 ms."""
    shape = (8, 2, 320, 320)
    prior = Prior(lambda x, t: x, VPSDE(), output="x0", event_shape=shape[1:])
    x = torch.randn(shape)
    rows = []
    for name in AFFINE:
        grid = make_grid(prior.sde, 11, end_ratio=0.01)
        calls = 21 if name in TWO_CALLS else 11
        seconds = _best(lambda name=name, grid=grid: SAMPLERS[name](prior, x, grid, _Nothing()))
        rows.append([name, 1000 * seconds / calls, 100 * seconds / calls / 0.05])
    return markdown(
        "Overhead a call at 8 x 2 x 320 x 320",
        "The whole sampler with a network and noise that cost nothing, best of five, one thread.",
        ["sampler", "ms a call", "% of a 50 ms network"],
        rows,
    )


def table_noise() -> str:
    """Reproducible noise against one torch.randn of the batch."""
    rows = []
    for batch in (1, 8, 64):
        like, noise = torch.empty(batch, 2, 320, 320), Noise(0, range(batch))
        plain = _best(lambda like=like: torch.randn(like.shape))
        mine = _best(lambda like=like, noise=noise: noise(like, 0))
        rows.append([batch, 1000 * plain, 1000 * mine, mine / plain])
    return markdown(
        "Noise that is a pure function of (seed, item, sample, draw), B x 2 x 320 x 320",
        "Milliseconds, best of five.",
        ["batch", "torch.randn", "Noise", "ratio"],
        rows,
    )


def table_others(most: int = 1000, num: int = 4096) -> str:
    """score_sde_pytorch's algorithms and azula's samplers on the same prior."""
    rows = []
    budgets = [n for n in (20, 35, 100, 1000) if n <= most]
    for label in ("VP", "VE(50)"):
        prior = stationary(SDES[label])
        for rule in ("euler_maruyama", "reverse_diffusion", "ancestral_sampling"):
            row: list[Any] = [label, f"score_sde_pytorch {rule}"]
            for n in budgets:
                grid = released_times(prior.sde, n)
                row.append(exact_kl(prior, released(rule), grid, draws=1))
            rows.append(row)
        rows.append([label, "score_sde_pytorch PC, Langevin 0.16"])
        for n in budgets:
            noise = BatchNoise()
            xT = start(prior, (num, 1, 8, 8), noise)  # type: ignore[arg-type]
            pc = released("reverse_diffusion", langevin=0.16)
            x = pc(prior, xT, released_times(prior.sde, n // 2), noise)
            rows[-1].append(excess_kl(x, prior.mean, prior.cov))
        rows += [_azula_row(label, prior, name, budgets) for name in AZULA]
        rows += [
            [label, f"inverse_score {name}"]
            + [exact_kl(prior, name, grid_for(prior, n)) for n in budgets]
            for name in ("dpm++2m", "dpm++2m-sde")
        ]
    return markdown(
        "Side by side, KL to the stationary Gaussian in nats, by calls",
        "score_sde_pytorch's rules on its own grids; azula 0.11.1's update rules on the grid and "
        "end of inverse_score. All exact but PC, which is sampled.",
        ["SDE", "sampler", *map(str, budgets)],
        rows,
    )


def _azula_row(label: str, prior: Any, name: str, budgets: Sequence[int]) -> list[Any]:
    try:
        sampler = azula_sampler(name)
    except ImportError:
        return [label, f"azula {name}", *["not installed"] * len(budgets)]
    calls = 2 if name == "HeunSampler" else 1
    kls = [exact_kl(prior, sampler, grid_for(prior, n, calls), draws=0) for n in budgets]
    return [label, f"azula {name}", *kls]


TABLES: dict[str, Callable[..., str]] = {
    "quality": table_quality,
    "others": table_others,
    "orders": table_orders,
    "adaptive": table_adaptive,
    "corrector": table_corrector,
    "mixture": table_mixture,
    "likelihood": table_likelihood,
    "overhead": table_overhead,
    "noise": table_noise,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--tables", default=",".join(TABLES), help="comma-separated names")
    parser.add_argument("--most", type=int, default=1000, help="largest number of calls tabulated")
    parser.add_argument("--out", type=Path, help="also write the tables to this file")
    chosen = parser.parse_args(arguments)
    names = chosen.tables.split(",")
    unknown = sorted(set(names) - set(TABLES))
    if unknown:
        parser.error(f"unknown tables {', '.join(unknown)}; known: {', '.join(TABLES)}")
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    text = []
    for name in names:
        began = time.perf_counter()
        table = TABLES[name](chosen.most) if name in ("quality", "others") else TABLES[name]()
        text.append(f"{table}\n({name}: {time.perf_counter() - began:.0f} s)\n")
        print(text[-1], flush=True)
        if chosen.out is not None:
            chosen.out.parent.mkdir(parents=True, exist_ok=True)
            chosen.out.write_text("\n".join(text))


if __name__ == "__main__":
    main()
