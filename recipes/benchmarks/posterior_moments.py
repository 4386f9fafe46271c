"""Moments of a posterior sampler on a Gaussian problem without Monte Carlo error.

With a Gaussian prior many methods are affine in their draws: x = m + sum_k L_k z_k. One batch in
float64, a row for m and one for each coordinate of each z_k, gives mean m and covariance
sum_k L_k L_k^T. A further row with all draws random checks that the method is affine at all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inverse_score.gaussian import gaussian_kl
from inverse_score.posterior import METHODS, measure
from inverse_score.posterior.methods import Plan, grid_for
from inverse_score.randomness import Noise
from inverse_score.sampling import counted

from .posterior_problems import Problem

Draw = tuple[int, int]  # (step, stream)


class Recorder:
    """Zeros for every draw, in the order in which they are asked for."""

    def __init__(self) -> None:
        self.draws: list[Draw] = []

    def __call__(self, like: Tensor, step: int, stream: int = 0) -> Tensor:
        if (step, stream) not in self.draws:
            self.draws.append((step, stream))
        return torch.zeros_like(like)


class Impulses:
    """Row 0: zeros; row 1: random; row 2 + k d + j: coordinate j of the k-th draw is 1."""

    def __init__(self, draws: list[Draw], dim: int):
        self.place = {draw: k for k, draw in enumerate(draws)}
        self.dim, self.random = dim, Noise(0, [0])

    @property
    def rows(self) -> int:
        return 2 + self.dim * len(self.place)

    def __call__(self, like: Tensor, step: int, stream: int = 0) -> Tensor:
        z = torch.zeros_like(like)
        z[1] = self.random(like[1:2], step, stream)[0]
        first = 2 + self.place[step, stream] * self.dim
        z[first : first + self.dim] = torch.eye(self.dim, dtype=like.dtype).reshape(
            self.dim, *like.shape[1:]
        )
        return z


def exact_scores(
    problem: Problem, options: dict[str, Any], *, steps: int | None = None
) -> dict[str, Any]:
    """Excess KL and errors of the method's own law, and its cost; RuntimeError if not affine."""
    options = dict(options)
    method = METHODS[options.pop("method")]
    sampler = options.pop("sampler", method.sampler)
    y = problem.y.to(torch.complex128 if problem.y.is_complex() else torch.float64)
    data = measure(problem.prior, y, problem.operator, problem.noise_std)
    times = grid_for(
        problem.prior, float(data.level), float(data.typical), steps or method.steps, "log-snr"
    )
    plan = Plan(sampler, times, dict(method.sampler_options))
    prior, counter = counted(problem.prior)
    recorder = Recorder()
    with torch.no_grad():
        method.run(prior, data, recorder, plan, **options)
        noise = Impulses(recorder.draws, problem.truth.numel())
        counter.nfe = counter.vjps = 0
        x = method.run(prior, data.rows([0] * noise.rows), noise, plan, **options)
    return {
        **_compare(problem, x.flatten(1), noise),
        "nfe": counter.nfe,
        "vjps": counter.vjps,
        "forward_equivalents": counter.nfe + 2 * counter.vjps,
        "runs": f"{sampler}, {len(times)} steps",
    }


def _compare(problem: Problem, x: Tensor, noise: Impulses) -> dict[str, Any]:
    """x (rows, d): what the rows of `Impulses` came to."""
    columns = x[2:] - x[0]
    _check_affine(x, columns, noise, problem)
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


def _check_affine(x: Tensor, columns: Tensor, noise: Impulses, problem: Problem) -> None:
    like = torch.empty(1, noise.dim, dtype=x.dtype)
    z = torch.cat([noise.random(like, *draw)[0] for draw in noise.place])
    spread = problem.posterior.cov[0].diagonal().sqrt()
    gap = float(((x[1] - x[0] - z @ columns) / spread).abs().max())
    if not gap < 0.1:
        raise RuntimeError(f"the method is not affine: superposition fails by {gap:.2g} std")
