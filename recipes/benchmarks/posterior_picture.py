"""True against sampled marginals of every method, one panel each."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from inverse_score import solve
from inverse_score.posterior import METHODS

from .posterior_problems import Problem

PIXELS = ((0, 1, 6), (0, 3, 3))
COUNT = 512


def draw(path: Path) -> None:
    """One unobserved pixel of the Gaussian problem and one coordinate of the 25 modes, a method."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    gaussian = Problem("inpainting", "stationary", 0.1)
    modes = Problem("sum", "modes-2d", 0.5)
    choices = _choices()
    columns = 4
    height = 2 * math.ceil(len(choices) / columns)
    figure, axes = plt.subplots(height, columns, figsize=(11, 1.7 * height))
    for ax in axes.flat:
        ax.axis("off")
    for k, (name, options) in enumerate(choices.items()):
        row, column = divmod(k, columns)
        for offset, problem in enumerate((gaussian, modes)):
            ax = axes[2 * row + offset, column]
            ax.axis("on")
            _panel(ax, problem, options)
            if offset == 0:
                ax.set_title(name, fontsize=9)
    figure.suptitle(
        "True marginal (line) against 512 samples (bars): an unobserved pixel of the Gaussian "
        "problem, and a coordinate of 25 modes given their sum",
        fontsize=10,
    )
    figure.tight_layout(rect=(0, 0, 1, 0.98))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _panel(ax: Any, problem: Problem, options: dict[str, Any]) -> None:
    index = unobserved(problem) if problem.covariance == "stationary" else (0,)
    grid, density = marginal(problem, index)
    ax.plot(grid, density, color="black", linewidth=1)
    ax.set_yticks([])
    ax.tick_params(labelsize=7)
    ax.set_xlim(float(grid[0]), float(grid[-1]))
    ax.set_ylim(0, 1.5 * float(density.max()))
    try:
        rec = solve(
            problem.y,
            problem.operator,
            problem.prior,
            noise_std=problem.noise_std,
            num_samples=COUNT,
            **options,
        )
    except ValueError:
        ax.text(0.5, 0.6, "does not apply", ha="center", transform=ax.transAxes, fontsize=8)
        return
    x = rec.samples[(slice(None), 0, *index)].double()  # type: ignore[index]
    edges = torch.linspace(float(grid[0]), float(grid[-1]), 61).tolist()
    ax.hist(x.tolist(), bins=edges, density=True, color="#7aa6d8")


def unobserved(problem: Problem) -> tuple[int, ...]:
    """The unobserved pixel nearest to the middle."""
    mask = problem.operator.row_gram[0]
    return min(PIXELS + tuple(map(tuple, (mask == 0).nonzero().tolist())),
               key=lambda p: (float(mask[p]), (p[1] - 3.5) ** 2 + (p[2] - 3.5) ** 2))  # fmt: skip


def marginal(problem: Problem, index: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """The exact posterior density of one element, on a grid of 600 points."""
    post = problem.posterior
    event = problem.prior.event_shape
    flat = int(torch.arange(math.prod(event)).reshape(event)[index])
    if hasattr(post, "cov"):
        weights, means = torch.ones(1), post.mean[0].flatten()[flat : flat + 1]
        stds = post.cov[0][flat, flat].sqrt()[None]
    else:
        weights, means = post.weights[0], post.means[0].flatten(1)[:, flat]
        stds = post.covs[0][:, flat, flat].sqrt()
    centre = float((weights * means).sum())
    width = float((weights * ((means - centre) ** 2 + stds**2)).sum().sqrt())
    grid = torch.linspace(centre - 4 * width, centre + 4 * width, 600, dtype=torch.float64)
    z = (grid[:, None] - means) / stds
    density = (weights * torch.exp(-0.5 * z**2) / (stds * math.sqrt(2 * math.pi))).sum(1)
    return grid, density


def _choices() -> dict[str, dict[str, Any]]:
    chosen: dict[str, dict[str, Any]] = {
        f"{covariance}": {
            "method": "moment-matching",
            "covariance": covariance,
            "sampler": "dpm++2m" if covariance == "jacobian" else "dpm++2m-sde",
        }
        for covariance in ("jacobian", "spectrum", "isotropic")
    }
    for name, method in METHODS.items():
        if not method.deterministic and name != "moment-matching":
            chosen[name] = {"method": name}
    return chosen
