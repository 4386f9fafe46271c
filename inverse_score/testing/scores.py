"""Samples of `solve` against a posterior known in closed form: KL, moments, calibration.

An excess is KL(moments of n samples || truth) less what n exact samples score. `affine` has the
same of methods that are affine, without samples.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..solver import solve
from ..uncertainty import binomial_band, coverage, rank_uniformity, ranks, tarp
from .problems import ToyProblem
from .toys import excess_kl, kl_floor


def gaussian_scores(problem: ToyProblem, samples: Tensor) -> dict[str, float]:
    """Excess KL in nats, the mean's error in posterior standard deviations, covariance errors."""
    x = samples.detach().cpu().double().flatten(1)
    post = problem.posterior
    mean, cov = post.mean[0].flatten(), post.cov[0]
    if not bool(torch.isfinite(x).all()):
        return {"excess": math.inf}
    found = torch.cov(x.T)
    shift = x.mean(0) - mean
    mahalanobis = (shift @ torch.linalg.solve(cov, shift) / len(mean)).sqrt()
    return {
        "excess": excess_kl(x, mean, cov) + kl_floor(len(mean), len(x)) - sampling_kl(x),
        "mean_error": float(mahalanobis),
        "cov_error": float((found - cov).norm() / cov.norm()),
        "trace": float(found.trace() / cov.trace()),
        "samples": len(x),
    }


def sampling_kl(x: Tensor) -> float:
    """E KL of the moments of as many exact samples as x (n, d) holds: -E log|W / n| / 2.

    W is Wishart with n - 1 degrees of freedom; d (d + 3) / (4 n) for large n.
    """
    n, d = x.shape
    i = torch.arange(1, d + 1, dtype=torch.float64)
    return 0.5 * float(d * math.log(n / 2) - torch.special.digamma((n - i) / 2).sum())


def solved(problem: ToyProblem, count: int, **options: Any) -> tuple[Tensor, dict[str, Any]]:
    """(samples (n, *event), cost) of one solve."""
    rec = solve(
        problem.y,
        problem.operator,
        problem.prior,
        noise_std=problem.noise_std,
        num_samples=count,
        batch_size=4096,
        **options,
    )
    cost = {"nfe": rec.nfe, "vjps": rec.vjps, "forward_equivalents": rec.forward_equivalents}
    assert rec.samples is not None
    return rec.samples[:, 0], {**cost, "runs": rec.method}


def sampled_scores(problem: ToyProblem, count: int, **options: Any) -> dict[str, Any]:
    """Scores and cost of `count` samples."""
    x, cost = solved(problem, count, **options)
    return {**gaussian_scores(problem, x), **cost}


def rank_scores(
    samples: Tensor, truth: Tensor, at: tuple[int, ...] = (0, 4, 5)
) -> dict[str, float]:
    """Calibration of samples (S, N, *event) of N problems whose truths (N, *event) are draws of
    the prior: p-values of the ranks of the number `at` (Talts et al. 2018), share of its nominal
    90 % intervals that cover, TARP (Lemos et al. 2023)."""
    pixel = (slice(None), *at)
    rank = ranks(samples[(slice(None), *pixel)], truth[pixel])
    test = tarp(samples, truth)
    inside = coverage(samples[(slice(None), *pixel)][..., None], truth[pixel][:, None], 0.9)
    low, high = binomial_band(len(truth), 0.9)
    return {
        "rank_p": rank_uniformity(rank, len(samples), bins=10).p_value,
        "coverage_90": float(inside.mean()),
        "band_low": low,
        "band_high": high,
        "tarp_deviation": test.deviation,
        "tarp_p": test.p_value,
    }
