"""True against sampled marginals of every method, one panel each."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from inverse_score import solve
from inverse_score.testing.problems import ToyProblem
from posterior_ranks import choices

PIXELS = ((0, 1, 6), (0, 3, 3))
COUNT = 512


def draw(path: Path) -> None:
    """One unobserved pixel of the Gaussian problem and one coordinate of the 25 modes, a method."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    gaussian = ToyProblem("inpainting", "stationary", 0.1)
    modes = ToyProblem("sum", "modes-2d", 0.5)
    panels = choices()
    columns = 4
    height = 2 * math.ceil(len(panels) / columns)
    figure, axes = plt.subplots(height, columns, figsize=(11, 1.7 * height))
    for ax in axes.flat:
        ax.axis("off")
    for k, (name, options) in enumerate(panels.items()):
        row, column = divmod(k, columns)
        for offset, problem in enumerate((gaussian, modes)):
            ax = axes[2 * row + offset, column]
            ax.axis("on")
            _panel(ax, problem, options)
            if offset == 0:
                ax.set_title(name, fontsize=9)
    figure.suptitle(
        "True posterior (lines) against 512 samples (bars): density of an unobserved pixel of the "
        "Gaussian problem;\nbelow it, weights of 25 modes by their first coordinate, given the sum",
        fontsize=10,
    )
    figure.tight_layout(rect=(0, 0, 1, 0.98))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _panel(ax: Any, problem: ToyProblem, options: dict[str, Any]) -> None:
    """Axes of one method: the truth at once, the samples unless the method does not apply."""
    modes = problem.covariance == "modes-2d"
    index = (0,) if modes else unobserved(problem)
    ax.set_yticks([])
    ax.tick_params(labelsize=7)
    (_draw_weights if modes else _draw_density)(ax, problem, index)
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
    if modes:
        places, _ = mode_weights(problem)
        nearest = torch.cdist(x[:, None], places[:, None]).argmin(1)
        share = torch.bincount(nearest, minlength=len(places)) / len(x)
        ax.bar(places.tolist(), share.tolist(), width=1.3, color="#7aa6d8")
    else:
        edges = torch.linspace(*ax.get_xlim(), 41).tolist()
        ax.hist(x.tolist(), bins=edges, density=True, color="#7aa6d8")


def _draw_density(ax: Any, problem: ToyProblem, index: tuple[int, ...]) -> None:
    grid, density = marginal(problem, index)
    ax.plot(grid, density, color="black", linewidth=1)
    ax.set_xlim(float(grid[0]), float(grid[-1]))
    ax.set_ylim(0, 1.5 * float(density.max()))


def _draw_weights(ax: Any, problem: ToyProblem, index: tuple[int, ...]) -> None:
    places, weights = mode_weights(problem)
    ax.hlines(weights, places - 0.8, places + 0.8, color="black", linewidth=1.5)
    ax.set_xticks(places.tolist())
    ax.set_ylim(0, 1.6 * float(weights.max()))


def mode_weights(problem: ToyProblem) -> tuple[torch.Tensor, torch.Tensor]:
    """First coordinates of the modes and their weights under the posterior, summed over the
    second coordinate. A mode is 0.05 wide and 2 from the next: a bar each, not a density."""
    places = problem.prior.means.flatten(1)[:, 0]
    unique, which = torch.unique(places, return_inverse=True)
    weights = torch.zeros(len(unique), dtype=torch.float64)
    return unique, weights.index_add(0, which, problem.posterior.weights[0])


def unobserved(problem: ToyProblem) -> tuple[int, ...]:
    """The unobserved pixel nearest to the middle."""
    mask = problem.operator.forms.row_gram[0]
    return min(PIXELS + tuple(map(tuple, (mask == 0).nonzero().tolist())),
               key=lambda p: (float(mask[p]), (p[1] - 3.5) ** 2 + (p[2] - 3.5) ** 2))  # fmt: skip


def marginal(problem: ToyProblem, index: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """The exact posterior density of one element of the Gaussian problem, on 600 points."""
    post = problem.posterior
    event = problem.prior.event_shape
    flat = int(torch.arange(math.prod(event)).reshape(event)[index])
    mean, std = float(post.mean[0].flatten()[flat]), float(post.cov[0][flat, flat].sqrt())
    grid = torch.linspace(mean - 4 * std, mean + 4 * std, 600, dtype=torch.float64)
    z = (grid - mean) / std
    return grid, torch.exp(-0.5 * z**2) / (std * math.sqrt(2 * math.pi))
