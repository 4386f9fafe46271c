"""Every method and both budgets on trained networks, against exact posteriors.

    python tests/studies/trained_toys.py [toys] [shipped] [--match TEXT]

toys: the networks of `train_toys`, whose laws' posteriors are known. shipped: the priors that ship,
truths drawn from the priors themselves. Rows go to trained_toys.jsonl as they finish, of two alike
the later counts; the tables, trained_toys.md, are written from all of them.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inverse_score import load_prior, sample, solve
from inverse_score.posterior import METHODS
from inverse_score.testing.problems import ToyProblem
from operators import CartesianMRI, Mask, Radon

HERE = Path(__file__).parent
ROWS = HERE / "trained_toys.jsonl"
PROBLEMS = [
    ToyProblem("inpainting", "stationary", 0.1),
    ToyProblem("inpainting", "nonstationary", 0.1),
    ToyProblem("inpainting", "nonstationary", 0.01),
    ToyProblem("radon", "nonstationary", 0.01),
    ToyProblem("corner", "modes-64d", 0.2),
]
BUDGETS: dict[str, dict[str, Any]] = {
    "budget fast": {"budget": "fast"},
    "budget accurate": {"budget": "accurate"},
    "moment-matching, isotropic": {"method": "moment-matching", "covariance": "isotropic"},
}
OTHERS = {
    name: {"method": name}
    for name, method in METHODS.items()
    if not method.deterministic and name != "moment-matching"
}
COUNT = 96
SHIPPED = {"photo-patches": 48, "brain-mri": 48, "digits": 28, "body-ct": 48}


def exact_moments(problem: ToyProblem) -> tuple[Tensor, Tensor]:
    """Mean (d,) and covariance (d, d) of the exact posterior."""
    post = problem.posterior
    if hasattr(post, "cov"):
        return post.mean[0].flatten(), post.cov[0]
    means, w = post.means[0].flatten(1), post.weights[0]
    mean = w @ means
    between = torch.einsum("k,ki,kj->ij", w, means - mean, means - mean)
    return mean, torch.einsum("k,kij->ij", w, post.covs[0]) + between


def toy_row(problem: ToyProblem, prior: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Error of the mean in posterior standard deviations, spread over the true one, misfits."""
    rec = solve(
        problem.y,
        problem.operator,
        prior,
        noise_std=problem.noise_std,
        num_samples=COUNT,
        batch_size=COUNT,
        seed=1,
        **options,
    )
    mean, cov = exact_moments(problem)
    x = rec.samples[:, 0].double().flatten(1)
    shift = x.mean(0) - mean
    return {
        "mean": float((shift @ torch.linalg.solve(cov, shift) / len(mean)).sqrt()),
        "spread": float((torch.cov(x.T).trace() / cov.trace()).sqrt()),
        **cost_and_fit(rec),
    }


def cost_and_fit(rec: Any) -> dict[str, Any]:
    return {
        "misfit": float(rec.misfit.mean()),
        "worst": float(rec.misfit.max()),
        "warned": bool(rec.warnings),
        "nfe": rec.nfe,
        "vjps": rec.vjps,
    }


def shipped_problem(name: str, seed: int) -> tuple[Any, Any, Tensor, Tensor, float]:
    """(prior, operator, truth, y, noise_std): half the pixels, MRI at 4x, CT of 16 views."""
    prior, size = load_prior(name), SHIPPED[name]
    x = sample(prior, (1, prior.channels, size, size), seed=100 + seed)
    g = torch.Generator().manual_seed(seed)
    scale = prior.range[0]
    if name in ("photo-patches", "digits"):
        mask = (torch.rand(1, size, size, generator=g) > 0.5).float()
        operator, std = Mask(mask, (prior.channels, size, size)), 0.04 * scale
    elif name == "brain-mri":
        columns = torch.zeros(size)
        columns[::4] = columns[size // 2 - 3 : size // 2 + 3] = 1
        operator, std = CartesianMRI(columns, image_shape=(size, size)), 0.02 * scale
    else:
        views = torch.arange(16) * math.pi / 16
        operator, std = Radon(size, views), 0.01 * scale * math.sqrt(size)
    y = operator(x)
    # torch draws complex numbers of unit variance, a half in each part.
    unit = math.sqrt(2) if y.is_complex() else 1.0
    noise = unit * torch.randn(y.shape, generator=g, dtype=y.dtype)
    return prior, operator, x, y + std * noise * (y != 0), std


def shipped_row(name: str, seed: int, options: dict[str, Any]) -> dict[str, Any]:
    """PSNR of the mean of two samples, their spread over their error, misfits."""
    prior, operator, x, y, std = shipped_problem(name, seed)
    rec = solve(y, operator, prior, noise_std=std, num_samples=2, seed=seed, **options)
    error = (rec.mean - x).square().mean().sqrt()
    # The mean of n samples errs by 1 + 1 / n of the posterior's variance.
    spread = (1.5 * rec.std.square().mean()).sqrt() / error
    psnr = 20 * math.log10(float((x.max() - x.min()) / error))
    return {"psnr": psnr, "spread": float(spread), **cost_and_fit(rec)}


def measure(section: str, problem: str, method: str, run: Callable[[], dict[str, Any]]) -> None:
    """Append the row; what raises is a row that says so."""
    began = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = run()
    except (ValueError, RuntimeError) as error:
        values = {"failed": f"{type(error).__name__}: {error}"[:100]}
    row = {"section": section, "problem": problem, "method": method, **values}
    row["seconds"] = round(time.perf_counter() - began, 1)
    print(json.dumps(row), flush=True)
    with ROWS.open("a") as file:
        file.write(json.dumps(row) + "\n")


def toys(match: str, methods: dict[str, dict[str, Any]]) -> None:
    for problem in PROBLEMS:
        prior = load_prior(HERE / f"{problem.covariance}.safetensors")
        for name, options in methods.items():
            if match in f"{problem.name}, {name}":
                run = partial(toy_row, problem, prior, options)
                measure("toys", problem.name, name, run)


def shipped(match: str) -> None:
    for name in SHIPPED:
        for seed in range(2):
            for label in ("budget fast", "budget accurate"):
                if match in f"{name}, {label}":
                    run = partial(shipped_row, name, seed, BUDGETS[label])
                    measure("shipped", f"{name}, seed {seed}", label, run)


def write_tables() -> None:
    """trained_toys.md from the rows."""
    found = {}
    for row in map(json.loads, ROWS.read_text().splitlines()):
        found[row["section"], row["problem"], row["method"]] = row
    text = [__doc__.splitlines()[0], ""]
    heads = {
        "toys": ("mean", "spread", "misfit", "worst", "warned", "nfe", "vjps", "seconds"),
        "shipped": ("psnr", "spread", "misfit", "worst", "warned", "nfe", "vjps", "seconds"),
    }
    for section, columns in heads.items():
        text += [INTRODUCTIONS[section], "", f"| problem | method | {' | '.join(columns)} |"]
        text += ["|---" * (2 + len(columns)) + "|"]
        for row in found.values():
            if row["section"] == section:
                shown = [_shown(row.get(column)) for column in columns]
                if "failed" in row:
                    shown[0] = row["failed"]
                text.append(f"| {row['problem']} | {row['method']} | {' | '.join(shown)} |")
        text.append("")
    (HERE / "trained_toys.md").write_text("\n".join(text))


INTRODUCTIONS = {
    "toys": f"Trained 8x8 networks, {COUNT} samples of each method at its defaults. mean: error of "
    f"the samples' mean in posterior standard deviations ({COUNT**-0.5:.2f} is what as many exact "
    "samples have); spread: root of the covariances' traces over each other; misfit and the worst "
    "of a sample; seconds on a loaded core.",
    "shipped": "The priors that ship, truths drawn from them, 48 x 48 (digits 28 x 28): half the "
    "pixels, MRI at 4x with 6 central columns, CT of 16 views. PSNR of the mean of two samples; "
    "spread: their standard deviation over their error, 1 is right.",
}


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", default=["toys", "shipped"])
    parser.add_argument("--match", default="")
    chosen = parser.parse_args()
    if "toys" in chosen.sections:
        toys(chosen.match, {**BUDGETS, **OTHERS})
    if "shipped" in chosen.sections:
        shipped(chosen.match)
    write_tables()
