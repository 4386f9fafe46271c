"""Is a sampler's spread right? Ranks, coverage, TARP, conformal factors and binomial bands.

samples are (n, B, *event), truth (B, *event): n draws of each of B problems whose truth is known.
For a right sampler the truth is exchangeable with the samples, at any n; every test here rests on
that alone.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .randomness import TEST, Noise


def ranks(samples: Tensor, truth: Tensor, *, seed: int = 0) -> Tensor:
    """How many samples lie below the truth, 0..n, of truth's shape; ties broken at random.

    Uniform on 0..n for a right sampler (Talts et al. 2018), element by element. A U-shaped
    histogram says that samples spread too little, a heap in the middle too much.
    """
    _check(samples, truth)
    below = (samples < truth).sum(0)
    ties = (samples == truth).sum(0)
    u = Noise(seed, range(len(truth))).uniform(truth.double(), 0, TEST)
    return below + (u * (ties + 1)).floor().to(below)


class Uniformity(NamedTuple):
    """counts (bins,), their expectation, the chi-square statistic and its p-value."""

    counts: Tensor
    expected: float
    chi2: float
    p_value: float


def rank_uniformity(rank: Tensor, num_samples: int, *, bins: int | None = None) -> Uniformity:
    """Chi-square test that ranks (0..num_samples) are uniform; ranks must be independent.

    bins must divide num_samples + 1 (default: the largest divisor up to 20). Pixels of one image
    are not independent: take one statistic an image, or one pixel.
    """
    rank = rank.flatten()
    total = num_samples + 1
    bins = bins or max(k for k in range(1, min(total, 20) + 1) if total % k == 0)
    if total % bins or bins < 2:
        raise ValueError(f"bins must be >= 2 and divide num_samples + 1 = {total}; got {bins}")
    counts = torch.bincount(rank * bins // total, minlength=bins).double()
    expected = len(rank) / bins
    chi2 = float(((counts - expected) ** 2 / expected).sum())
    half = torch.tensor([(bins - 1) / 2, chi2 / 2], dtype=torch.float64)
    return Uniformity(counts, expected, chi2, float(torch.special.gammaincc(half[0], half[1])))


def coverage(samples: Tensor, truth: Tensor, level: float) -> Tensor:
    """(B,): the share of elements inside mean +- t sqrt(1 + 1/n) std, at a nominal `level`.

    t is Student's quantile with n - 1 degrees of freedom: with Gaussian marginals the expectation
    is `level` at any n, where mean +- 1.96 std of n = 8 covers 90 % instead of 95.
    """
    _check(samples, truth)
    n = len(samples)
    if n < 2:
        raise ValueError("coverage needs at least two samples of each item")
    width = student_quantile(level, n - 1) * math.sqrt(1 + 1 / n) * samples.std(0)
    inside = (truth - samples.mean(0)).abs() <= width
    return inside.flatten(1).double().mean(1)


def student_quantile(level: float, dof: int) -> float:
    """t with P(|T| <= t) = level for Student's law with dof degrees of freedom."""
    from scipy.special import stdtrit

    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1); got {level}")
    return float(stdtrit(dof, 0.5 * (1 + level)))


class Tarp(NamedTuple):
    """credibility (K,) in [0, 1] and coverage (K,): the expected coverage at each level.

    deviation: the largest |coverage - credibility|, and p_value, Kolmogorov's for B problems.
    """

    credibility: Tensor
    coverage: Tensor
    deviation: float
    p_value: float


def tarp(
    samples: Tensor, truth: Tensor, *, references: Tensor | None = None, seed: int = 0
) -> Tarp:
    """Tests of accuracy with random points (Lemos et al. 2023), on whole events.

    The share f of samples nearer to a reference point than the truth is uniform for a right
    sampler, whatever references (B, *event) are drawn without looking at the samples (default:
    another problem's truth plus noise of the truths' std). Coverage above the diagonal at high
    credibility: too wide.
    """
    _check(samples, truth)
    if references is None:
        references = truth.roll(1, 0) + truth.std() * Noise(seed, range(len(truth)))(truth, 0, TEST)
    distance = (samples - references).flatten(2).norm(dim=2)
    to_truth = (truth - references).flatten(1).norm(dim=1)
    below = (distance < to_truth).sum(0).double()
    u = Noise(seed, range(len(truth))).uniform(below[:, None], 1, TEST)[:, 0]
    f = (below + u) / (len(samples) + 1)
    levels = torch.linspace(0, 1, 101, dtype=torch.float64)
    covered = (f[None] <= levels[:, None]).double().mean(1)
    ordered, i = f.sort().values, torch.arange(1, len(f) + 1) / len(f)
    deviation = float(torch.maximum(i - ordered, ordered - i + 1 / len(f)).max())
    return Tarp(levels, covered, deviation, kolmogorov_p(deviation, len(f)))


def kolmogorov_p(deviation: float, count: int) -> float:
    """P(sup |F_n - F| >= deviation) for `count` independent draws (exact two-sided law)."""
    from scipy.stats import kstwo

    return float(kstwo.sf(deviation, count))


def conformal_factor(
    mean: Tensor, std: Tensor, truth: Tensor, *, level: float = 0.9, confidence: float = 0.9
) -> float:
    """The k for which mean +- k std covers `level` of a new image's elements, split conformal.

    An image's score is the smallest k that covers `level` of its elements; k is the
    ceil((B + 1) confidence)-th smallest of B calibration scores, so a new exchangeable image is
    covered with probability >= confidence (Vovk et al. 2005). std must be positive somewhere.
    Raises ValueError where B is too small for the confidence.
    """
    for name, value in (("level", level), ("confidence", confidence)):
        if not 0 < value < 1:
            raise ValueError(f"{name} must lie in (0, 1); got {value}")
    if mean.shape != truth.shape or std.shape != truth.shape:
        raise ValueError(
            f"mean, std and truth must agree; got {tuple(mean.shape)}, {tuple(std.shape)}, "
            f"{tuple(truth.shape)}"
        )
    count = len(truth)
    index = math.ceil((count + 1) * confidence - 1e-9)
    if index > count:
        need = math.ceil(confidence / (1 - confidence) - 1e-9)
        raise ValueError(f"confidence {confidence} needs at least {need} images; got {count}")
    gap = (truth - mean).abs()
    ratio = torch.where(gap == 0, 0.0, gap / std).flatten(1).double()
    kept = math.ceil(level * ratio.shape[1] - 1e-9)
    score = ratio.kthvalue(max(kept, 1), dim=1).values
    return float(score.sort().values[index - 1])


def binomial_band(count: int, probability: float, confidence: float = 0.95) -> tuple[float, float]:
    """The central interval of a share of `count` independent trials of this probability."""
    from scipy.stats import binom

    if count < 1 or not 0 <= probability <= 1 or not 0 < confidence < 1:
        raise ValueError(
            "need count >= 1, probability in [0, 1], confidence in (0, 1); got "
            f"{count}, {probability}, {confidence}"
        )
    low, high = binom.interval(confidence, count, probability)
    return float(low) / count, float(high) / count


def _check(samples: Tensor, truth: Tensor) -> None:
    if samples.ndim < 2 or samples.shape[1:] != truth.shape:
        raise ValueError(
            "samples must be (n, B, *event) and truth (B, *event); got "
            f"{tuple(samples.shape)} and {tuple(truth.shape)}"
        )
