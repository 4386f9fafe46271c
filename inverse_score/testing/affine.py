"""Moments of a posterior sampler on a Gaussian problem without Monte Carlo error.

With a Gaussian prior many methods are affine in their draws: x = m + sum_k L_k z_k. One batch,
a row for m and one for each coordinate of each z_k, gives mean m and covariance
sum_k L_k L_k^T. Four rows whose draws add up check first that the method is affine at all.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from ..gaussian import gaussian_kl
from ..posterior import measure, resolve
from ..randomness import Noise
from ..sampling import counted
from .problems import ToyProblem

Draw = tuple[int, int]  # (step, stream)
# A row for each coordinate of each draw: beyond this many, samples are the cheaper measure.
MAX_ROWS = 8192


class Recorder:
    """Zeros for every draw, and how many numbers each has, in the order they are asked for."""

    def __init__(self) -> None:
        self.draws: dict[Draw, int] = {}

    def __call__(self, like: Tensor, step: int, stream: int = 0) -> Tensor:
        self.draws.setdefault((step, stream), like[0].numel())
        return torch.zeros_like(like)


class Superposition:
    """Rows 0, a, b, a + b of every draw: an affine method maps them to rows that add up too."""

    rows = 4

    def __init__(self) -> None:
        self.random = Noise(0, [0, 1])

    def __call__(self, like: Tensor, step: int, stream: int = 0) -> Tensor:
        a, b = self.random(like[:2], step, stream)
        return torch.stack([torch.zeros_like(a), a, b, a + b])


class UnitDraws:
    """Row 0: zeros; then a row for each coordinate of each draw, in which it is 1."""

    def __init__(self, draws: dict[Draw, int]):
        self.first, self.rows = {}, 1
        for draw, numbers in draws.items():
            self.first[draw] = self.rows
            self.rows += numbers

    def __call__(self, like: Tensor, step: int, stream: int = 0) -> Tensor:
        z, numbers = torch.zeros_like(like), like[0].numel()
        unit = torch.eye(numbers, dtype=like.dtype).reshape(numbers, *like.shape[1:])
        first = self.first[step, stream]
        z[first : first + numbers] = unit
        return z


def exact_scores(
    problem: ToyProblem,
    options: dict[str, Any],
    *,
    steps: int | None = None,
    double: bool = False,
) -> dict[str, Any]:
    """Excess KL and errors of the method's own law, and its cost.

    RuntimeError if it is not affine, or has more draws than MAX_ROWS allows.
    """
    y = problem.y
    if double:
        y = y.to(torch.complex128 if y.is_complex() else torch.float64)
    data = measure(problem.prior, y, problem.operator, problem.noise_std)
    job = resolve(problem.prior, problem.operator, exact=data.exact, steps=steps, **options)
    walk = job.walk(problem.prior, float(data.level), float(data.typical))
    prior, counter = counted(problem.prior)
    recorder = Recorder()

    def run(noise: Any) -> Tensor:
        counter.nfe = counter.vjps = 0
        x = job.method.draw(prior, data.rows([0] * noise.rows), noise, walk, job.options)
        return x.flatten(1).double()

    with torch.no_grad():
        job.method.draw(prior, data, cast("Noise", recorder), walk, job.options)
        noise = UnitDraws(recorder.draws)
        if noise.rows > MAX_ROWS:
            raise RuntimeError(f"{noise.rows} rows are more than {MAX_ROWS}")
        _check_affine(run(Superposition()), problem)
        x = run(noise)
    return {
        **_compare(problem, x, noise),
        "nfe": counter.nfe,
        "vjps": counter.vjps,
        "forward_equivalents": counter.nfe + 2 * counter.vjps,
        "runs": f"{walk.sampler}, {job.steps} steps",
    }


def _compare(problem: ToyProblem, x: Tensor, noise: UnitDraws) -> dict[str, Any]:
    """x (rows, d): what the rows of `UnitDraws` came to."""
    columns = x[1:] - x[0]
    cov = columns.T @ columns
    post = problem.posterior
    mean, true = post.mean[0].flatten(), post.cov[0]
    shift = x[0] - mean
    return {
        "excess": gaussian_kl(x[0], cov, mean, true),
        "mean_error": float((shift @ torch.linalg.solve(true, shift) / len(mean)).sqrt()),
        "cov_error": float((cov - true).norm() / true.norm()),
        "trace": float(cov.trace() / true.trace()),
        "samples": "exact",
    }


def _check_affine(x: Tensor, problem: ToyProblem) -> None:
    spread = problem.posterior.cov[0].diagonal().sqrt()
    gap = float(((x[3] - x[1] - x[2] + x[0]) / spread).abs().max())
    if not gap < 0.1:
        raise RuntimeError(f"the method is not affine: superposition fails by {gap:.2g} std")
