"""Orders of convergence, the likelihood's errors, and other packages' samplers, on known laws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from inverse_score.likelihood import TERMINALS, encode, log_likelihood
from inverse_score.sampling import start
from inverse_score.sde import VPSDE
from inverse_score.testing.draws import BatchNoise
from inverse_score.testing.moments import exact_kl
from inverse_score.testing.orders import (
    COUNTS,
    ORDERS,
    WEAK_STEPS,
    slope,
    strong_errors,
    weak_order,
)
from inverse_score.testing.toys import excess_kl, grid_of_modes, nonstationary, stationary
from references import AZULA, azula_sampler, released, released_times
from sampler_runs import SDES, grid_for, markdown


def table_orders() -> str:
    """Weak order on a Gaussian, strong order on the mixture."""
    rows = []
    for name, (weak, strong) in ORDERS.items():
        paths = strong_errors(name, VPSDE(), 64)
        slopes = [slope(paths[k : k + 2], COUNTS[k : k + 2]) for k in (0, len(COUNTS) - 2)]
        rows.append([name, weak, weak_order(name), strong, *slopes, paths[0], paths[-1]])
    first, last = COUNTS[:2], COUNTS[-2:]
    return markdown(
        "Order of convergence (VP)",
        f"Weak: error of the variance on the Gaussian from {WEAK_STEPS[0]} to {WEAK_STEPS[1]} "
        "steps, exact, against the closed form. Strong: one Brownian path for all step sizes on "
        "the 25-mode mixture, errors in units of sigma against a run of 2048 steps.",
        [
            "method",
            "weak: theory",
            "weak: seen",
            "strong: theory",
            f"seen, {first[0]} to {first[1]} steps",
            f"seen, {last[0]} to {last[1]} steps",
            f"error at {COUNTS[0]}",
            f"error at {COUNTS[-1]}",
        ],
        rows,
    )


def table_likelihood(num: int = 8) -> str:
    """Errors of the exact and the stochastic trace against the closed form."""
    rows = []
    for label in ("VP", "VE(50)"):
        for toy in (stationary, nonstationary, grid_of_modes):
            prior = toy(SDES[label])
            x = prior.sample(num, t=prior.t_min)
            truth, bits = prior.log_prob(x, prior.t_min), x[0].numel() * math.log(2)
            exact, info = log_likelihood(x, prior, terminal="tweedie", return_info=True)
            xT = prior.sde.sigma(prior.sde.T) * encode(x, prior)
            plain = exact + TERMINALS["sde"](prior, xT) - TERMINALS["tweedie"](prior, xT)
            options = {"trace": "hutchinson", "probes": 16, "terminal": "tweedie"}
            about, more = log_likelihood(x, prior, return_info=True, **options)
            # Off-diagonal entries of 0 leave Rademacher probes nothing to err by.
            exactly = more["standard_error"] < 1e-6
            z = ((about - truth) / more["standard_error"]).masked_fill(exactly, math.nan)
            error = (exact - truth).abs() / bits
            largest = [((plain - truth).abs() / bits).max().item(), error.max().item()]
            about_error = more["standard_error"].mean().item() / bits
            z_found = [z.square().mean().sqrt().item(), z.abs().max().item()]
            rows.append([label, toy.__name__, info["nfe"], *largest, about_error, *z_found])
    return markdown(
        "Likelihood at t_min against the closed form",
        f"{num} draws, errors in bits / dim at the default tolerance 1e-5 (sub-VP's ODE is VP's). "
        "Exact trace: the largest error with x_T ~ N(0, sigma^2), as samplers start, and with p_T "
        'from Tweedie\'s formula (terminal="tweedie"). Hutchinson with 16 Rademacher probes: its '
        "own standard error, and the errors in units of it.",
        [
            "SDE",
            "prior",
            "calls",
            "exact, largest",
            "with tweedie",
            "Hutchinson's standard error",
            "RMS error / it",
            "largest / it",
        ],
        rows,
    )


def table_others(num: int = 1024) -> str:
    """score_sde_pytorch's algorithms and azula's samplers on the same prior."""
    rows: list[list[Any]] = []
    budgets = (20, 35, 100)
    for label in ("VP", "VE(50)"):
        prior = stationary(SDES[label])
        for rule in ("euler_maruyama", "reverse_diffusion", "ancestral_sampling"):
            grids = [released_times(prior.sde, n) for n in budgets]
            kls = [exact_kl(prior, released(rule), grid, draws=1) for grid in grids]
            rows.append([label, f"score_sde_pytorch {rule}", *kls])
        rows.append([label, "score_sde_pytorch PC, Langevin 0.16"])
        for n in budgets:
            noise: Any = BatchNoise()
            xT = start(prior, (num, 1, 8, 8), noise)
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
        "score_sde_pytorch's rules on its own grids (- where its betas pass 1); azula 0.11.1's "
        "update rules on the grid and end of inverse_score. All exact but PC, which is sampled.",
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
