"""Quality for cost: every sampler, budget and SDE on priors with a known law."""

from __future__ import annotations

from typing import Any

from inverse_score.sampling import end_ratio, make_grid
from inverse_score.testing.draws import sampler_draws
from inverse_score.testing.moments import DiagonalGaussian, exact_kl
from inverse_score.testing.toys import (
    IsotropicModes,
    excess_kl,
    grid_of_modes,
    mode_report,
    nonstationary,
    sliced_wasserstein,
    stationary,
)
from sampler_runs import (
    AFFINE,
    BUDGETS,
    SDES,
    TWO_CALLS,
    grid_for,
    markdown,
)

NOTE = (
    "Exact moments; from the SDE's own terminal law; one grid rule, uniform in log-SNR from T to "
    "the prior's smallest scale. Methods of two calls a step use one less. What many calls leave "
    "is the terminal law's error"
)
NOTES = {
    "stationary": NOTE + ".",
    "nonstationary": NOTE + " and, under VE, its sigma_min = 0.01, which is above this law's least "
    "std.",
}


def table_quality() -> str:
    """Excess KL of every affine sampler, budget and SDE on both Gaussians, exactly."""
    parts = []
    for toy in (stationary, nonstationary):
        budgets = [n for n in BUDGETS if n <= 100 or toy is stationary]
        rows = [
            [label, name] + [exact_kl(prior, name, grid_for(prior, n, calls)) for n in budgets]
            for label, sde in SDES.items()
            for prior in [toy(sde)]
            for name in AFFINE
            for calls in [2 if name in TWO_CALLS else 1]
        ]
        title = f"KL to the {toy.__name__} 8 x 8 Gaussian, nats, by calls of the prior"
        head = ["SDE", "sampler", *map(str, budgets)]
        parts.append(markdown(title, NOTES[toy.__name__], head, rows))
    return "\n".join(parts)


ADAPTIVE: tuple[tuple[str, dict[str, Any], int], ...] = (
    ("ode", {"rtol": 1e-2, "atol": 1e-2}, 2),
    ("ode", {"rtol": 1e-3, "atol": 1e-3}, 2),
    ("ode", {"rtol": 1e-5, "atol": 1e-5}, 2),
    ("adaptive-sde", {"rtol": 0.5}, 2),
    ("adaptive-sde", {"rtol": 0.1}, 2),
    ("annealed-langevin", {"inner": 5}, 21),
    ("annealed-langevin", {"inner": 20}, 21),
    ("langevin", {}, 101),
)


def table_adaptive(num: int = 1024) -> str:
    """Adaptive methods and Langevin samplers on the stationary Gaussian, by sampling."""
    rows = []
    for label in ("VP", "VE(50)"):
        sde, prior = SDES[label], stationary(SDES[label])
        for name, options, steps in ADAPTIVE:
            grid = make_grid(sde, steps, end_ratio=end_ratio(prior))
            x, nfe = sampler_draws(prior, num, name, grid, **options)
            shown = ", ".join(f"{k} {v}" for k, v in options.items())
            rows.append([label, name, shown, nfe, excess_kl(x, prior.mean, prior.cov)])
    return markdown(
        "Adaptive and Langevin samplers, stationary Gaussian",
        f"Excess KL in nats of {num} samples (scatter about 0.03); calls as counted: until the "
        "slowest item is done.",
        ["SDE", "sampler", "options", "calls", "excess KL"],
        rows,
    )


def table_mixture(num: int = 1024) -> str:
    """Sliced Wasserstein distance and mode weights on the 5 x 5 grid of modes."""
    rows = []
    for label, sde in SDES.items():
        prior = grid_of_modes(sde)
        fast, truth = IsotropicModes(prior), prior.sample(num, seed=1)
        for name in AFFINE:
            row: list[Any] = [label, name]
            for n in BUDGETS:
                grid = grid_for(prior, n, 2 if name in TWO_CALLS else 1)
                x, _ = sampler_draws(fast, num, name, grid)
                report = mode_report(x, prior)
                distance = sliced_wasserstein(x, truth)
                row.append(f"{distance:.3f} / {report.error:.3f} / {report.spread:.2f}")
            rows.append(row)
    exact = prior.sample(num, seed=2)
    report = mode_report(exact, prior)
    floor = f"{sliced_wasserstein(exact, truth):.3f} / {report.error:.3f} / {report.spread:.2f}"
    return markdown(
        "25 modes: sliced Wasserstein distance / error of the mode weights / spread, by calls",
        f"{num} samples; exact samples score {floor} (128 directions; total variation of the "
        "weights; std within modes over the true one, nan where none is near a mode).",
        ["SDE", "sampler", *map(str, BUDGETS)],
        rows,
    )


# (name, options of the corrector, calls a step with the predictor's own)
CORRECTORS: tuple[tuple[str, dict[str, float], int], ...] = (
    ("langevin", {"snr": 0.16}, 2),
    ("langevin", {"snr": 0.05}, 2),
    ("unadjusted-hmc", {"step": 0.5, "leapfrog": 1}, 3),
)


def table_corrector(num: int = 1024) -> str:
    """Predictor alone against predictor and corrector for the same number of calls."""
    rows, budgets = [], (35, 100, 350)
    for label in ("VP", "VE(50)"):
        prior = stationary(SDES[label])
        diagonal = DiagonalGaussian(prior)
        law = (diagonal.center, diagonal.variance.diag())
        for predictor in ("reverse-diffusion", "ancestral", "dpm++2m-sde"):
            alone = [exact_kl(prior, predictor, grid_for(prior, n)) for n in budgets]
            rows.append([label, predictor, "none", *alone])
            # Beside a corrector dpm++2m-sde takes first-order steps, which are ancestral's.
            for name, options, cost in CORRECTORS if predictor != "dpm++2m-sde" else ():
                pair = {"predictor": predictor, "corrector": name, "corrector_options": options}
                grids = [grid_for(prior, n, cost) for n in budgets]
                drawn = [sampler_draws(diagonal, num, "pc", grid, **pair)[0] for grid in grids]
                found = [excess_kl(samples, *law) for samples in drawn]
                shown = ", ".join(f"{k} {v}" for k, v in options.items())
                rows.append([label, predictor, f"{name}, {shown}", *found])
    return markdown(
        "What a corrector buys at equal cost, stationary Gaussian",
        f"KL in nats by calls of the prior, the corrector's counted: a pair takes a half or a third"
        f" of the steps. Alone exact; pairs from {num} samples (scatter about 0.03 while KL is "
        "small).",
        ["SDE", "predictor", "corrector", *map(str, budgets)],
        rows,
    )
