"""Orders of convergence, the likelihood's errors, and other packages' samplers, on known laws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from inverse_score.gaussian import GaussianPrior
from inverse_score.likelihood import TERMINALS, encode, log_likelihood
from inverse_score.sampling import make_grid, start
from inverse_score.sde import VPSDE

from .moments import exact_kl, exact_moments
from .orders import COUNTS, strong_errors
from .references import AZULA, azula_sampler, released, released_times
from .sampler_runs import SDES, BatchNoise, grid_for, markdown
from .toys import excess_kl, grid_of_modes, nonstationary, stationary

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
DETERMINISTIC = ("ddim", "dpm++2m", "heun")
WEAK_STEPS = (100, 200)


def limit_variance(prior: GaussianPrior, times: Sequence[float], deterministic: bool) -> Tensor:
    """Variance (d,) of x0_hat at the last time, in the eigenbasis, for infinitely many steps from
    N(0, sigma(T)^2) at the first time.

    With p the eigenvalues of p_t's covariance, the ODE takes x to sqrt(p_s / p_t) x and the SDE to
    N(a p_s / p_t x, p_s - a^2 p_s^2 / p_t), a = alpha_t / alpha_s: the law of x_s given x_t.
    """
    sde, t, s = prior.sde, times[0], times[-1]
    values = prior.values[0]
    p_t, p_s = (sde.alpha(u) ** 2 * values + sde.sigma(u) ** 2 for u in (t, s))
    first, a = sde.sigma(sde.T) ** 2, sde.alpha(t) / sde.alpha(s)
    if deterministic:
        variance = p_s / p_t * first
    else:
        variance = (a * p_s / p_t) ** 2 * first + p_s - (a * p_s) ** 2 / p_t
    return (sde.alpha(s) * values / p_s) ** 2 * variance


def weak_order(name: str) -> float:
    """The slope of the variance's error between the two WEAK_STEPS."""
    prior, misses = stationary(VPSDE()), []
    for steps in WEAK_STEPS:
        grid = make_grid(prior.sde, steps + 1, end_ratio=0.05, start_ratio=5.0)
        truth = limit_variance(prior, grid, name in DETERMINISTIC)
        misses.append((exact_moments(prior, name, grid)[1] - truth).abs().max().item())
    return math.log(misses[0] / misses[1]) / math.log(WEAK_STEPS[1] / WEAK_STEPS[0])


def table_orders() -> str:
    """Weak order on a Gaussian, strong order on the mixture."""
    rows = []
    for name, (weak, strong) in ORDERS.items():
        paths = strong_errors(name, VPSDE(), 64)
        slopes = [_slope(paths[k : k + 2], COUNTS[k : k + 2]) for k in (0, len(COUNTS) - 2)]
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


def _slope(errors: Sequence[float], counts: Sequence[int]) -> float:
    return math.log(errors[0] / errors[-1]) / math.log(counts[-1] / counts[0])


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
