"""Can a sampler's spread be trusted? Images with known truth, simulated measurements, one verdict.

Three tests, each exact or asymptotically exact in the number of measurements, which must be
independent of each other: the spread of ranks, their centre, and TARP. Pixels of one image are
not independent, so every test takes one number a measurement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from inverse_score.errors import BadInput
from inverse_score.prior import Prior
from inverse_score.randomness import TEST, Noise
from inverse_score.solver import solve
from inverse_score.uncertainty import binomial_band, conformal_factor, coverage, ranks, tarp
from operators import add_gaussian

LEVELS = (0.5, 0.68, 0.9, 0.95)
_POWER_Z = 0.8416  # 80 % power


@dataclass(frozen=True)
class Coverage:
    """The share of elements inside mean +- t std at a nominal level, and its band over images."""

    nominal: float
    observed: float
    low: float
    high: float


@dataclass(frozen=True)
class Verdict:
    """What the tests say. p-values are two-sided; the verdict is theirs at level / 3 each.

    spread: std of the samples over what it should be, by the ranks. detectable: the nearest
    spreads below and above 1 that this many measurements flag with 80 % chance.
    """

    measurements: int
    num_samples: int
    level: float
    p_spread: float
    p_centre: float
    p_tarp: float
    spread: float
    detectable: tuple[float, float]
    coverage: tuple[Coverage, ...]

    @property
    def calibrated(self) -> bool:
        """No test rejects at its share of the level."""
        return min(self.p_spread, self.p_centre, self.p_tarp) >= self.level / 3

    def words(self) -> str:
        """The verdict as a sentence."""
        low, high = self.detectable
        size = f"{self.measurements} measurements x {self.num_samples} samples"
        if self.calibrated:
            return (
                f"No miscalibration found at level {self.level:g} ({size}); a std off by less than "
                f"a factor {low:.2f} to {high:.2f} would have gone unseen."
            )
        named = {"spread": self.p_spread, "centre": self.p_centre, "TARP": self.p_tarp}
        failed = [f"{name} (p {p:.1e})" for name, p in named.items() if p < self.level / 3]
        side = "too narrow" if self.spread < 1 else "too wide"
        return (
            f"NOT calibrated at level {self.level:g} ({size}): {', '.join(failed)}. "
            f"The samples' std is about {self.spread:.2f} of what it should be ({side})."
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "calibrated": self.calibrated, "verdict": self.words()}


def judge(
    samples: Tensor, truth: Tensor, *, level: float = 1e-3, probes: int = 16, seed: int = 0
) -> Verdict:
    """The verdict on samples (n, B, *event) of B independent problems with known truth.

    Each measurement gives one number to each test: the mean over `probes` directions of
    (u - 1/2)^2, u the rank of the truth's projection among the samples' (uniform, so 1/12 in
    expectation); for the centre, u itself along each direction (Bonferroni over directions).
    """
    if truth.shape[0] < 8 or samples.shape[0] < 2:
        raise BadInput(
            "a verdict needs at least 8 measurements and 2 samples each; got "
            f"{truth.shape[0]} and {samples.shape[0]}"
        )
    n, B = samples.shape[:2]
    directions = _directions(truth, probes, seed)
    flat, true = samples.flatten(2).double() @ directions, truth.flatten(1).double() @ directions
    rank = ranks(flat, true, seed=seed).double()
    u = (rank + Noise(seed, range(B)).uniform(true, 2, TEST)) / (n + 1)
    dispersion = (u - 0.5).square().mean(1)
    error = float(dispersion.std() / math.sqrt(B))
    z_spread = (float(dispersion.mean()) - 1 / 12) / max(error, 1e-12)
    z_centre = float((u.mean(0) - 0.5).abs().max()) * math.sqrt(12 * B)
    return Verdict(
        measurements=B,
        num_samples=n,
        level=level,
        p_spread=_two_sided(z_spread),
        p_centre=min(1.0, probes * _two_sided(z_centre)),
        p_tarp=tarp(samples, truth, seed=seed).p_value,
        spread=spread_of(float(dispersion.mean())),
        detectable=_detectable(error, level / 3),
        coverage=tuple(_coverage(samples, truth, nominal) for nominal in LEVELS),
    )


def _directions(truth: Tensor, probes: int, seed: int) -> Tensor:
    """(d, probes) unit vectors: white noise, and for images every second one smooth.

    White directions see the fine detail, smooth ones what a reader sees.
    """
    noise = Noise(seed, range(probes))
    like = torch.empty(probes, *truth.shape[1:])
    directions = noise(like, 3, TEST)
    if truth.ndim == 4 and min(truth.shape[-2:]) >= 16:
        coarse = noise(like[..., ::8, ::8].contiguous(), 4, TEST)
        smooth = interpolate(coarse, size=truth.shape[-2:], mode="bilinear", align_corners=False)
        directions[1::2] = smooth[1::2]
    flat = directions.flatten(1).double()
    return (flat / flat.norm(dim=1, keepdim=True)).T


def dispersion_of(spread: float) -> float:
    """Var Phi(Z / r) = asin(a^2 / (1 + a^2)) / (2 pi), a = 1 / r: ranks of samples r too wide."""
    a2 = spread**-2
    return math.asin(a2 / (1 + a2)) / (2 * math.pi)


def spread_of(dispersion: float) -> float:
    """The inverse of `dispersion_of`; its range is (0, 1/4)."""
    sine = math.sin(2 * math.pi * min(max(dispersion, 1e-9), 0.25 - 1e-9))
    return math.sqrt((1 - sine) / sine)


def _detectable(error: float, level: float) -> tuple[float, float]:
    step = (_normal_quantile(1 - level / 2) + _POWER_Z) * error
    return spread_of(1 / 12 + step), spread_of(1 / 12 - step)


def _coverage(samples: Tensor, truth: Tensor, nominal: float) -> Coverage:
    observed = float(coverage(samples, truth, nominal).mean())
    low, high = binomial_band(truth.shape[0], nominal, 0.95)
    return Coverage(nominal, observed, low, high)


def _two_sided(z: float) -> float:
    return math.erfc(abs(z) / math.sqrt(2))


def _normal_quantile(p: float) -> float:
    return math.sqrt(2) * float(torch.erfinv(torch.tensor(2 * p - 1, dtype=torch.float64)))


def draw(
    prior: Prior,
    operator: Any,
    truth: Tensor,
    *,
    noise_std: float,
    num_samples: int = 32,
    seed: int = 0,
    **options: Any,
) -> Tensor:
    """Samples (n, B, *event) of y = A x + n for each truth x (B, *event), noise by (seed, item)."""
    where = getattr(operator, "mask", None)
    y = add_gaussian(operator(truth), noise_std, seed=seed, where=where)
    rec = solve(
        y, operator, prior, noise_std=noise_std, num_samples=num_samples, seed=seed, **options
    )
    return rec.samples  # type: ignore[return-value]


def conformal_by_person(
    mean: Tensor, std: Tensor, truth: Tensor, people: Sequence[str], *, level: float = 0.9
) -> dict[str, Any]:
    """The factor k for which mean +- k std covers `level` of every image of every person here.

    A person's score is the largest of the person's images; k is the largest score. A new person
    of the same kind is covered with probability people / (people + 1) (split conformal with the
    person as the exchangeable unit), which is stated and not rounded up.
    """
    if len(people) != len(truth):
        raise BadInput(f"{len(truth)} images need as many people's names; got {len(people)}")
    scores: dict[str, float] = {}
    for i, person in enumerate(people):
        one = slice(i, i + 1)
        # One image at confidence 1/2 is that image's own score.
        score = conformal_factor(mean[one], std[one], truth[one], level=level, confidence=0.5)
        scores[person] = max(score, scores.get(person, 0.0))
    count = len(scores)
    return {
        "factor": max(scores.values()),
        "level": level,
        "people": count,
        "images": len(people),
        "confidence": count / (count + 1),
    }
