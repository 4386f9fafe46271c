"""What `solve` returns: samples, mean and spread, how well they explain the data, the cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .posterior.covariance import pixel_variance
from .posterior.examination import Examination
from .posterior.measurement import LinearMeasurement, Measurement
from .prior import Prior
from .sampling import Counter


@dataclass(frozen=True)
class Reconstruction:
    """Posterior samples of B items, in data units.

    samples: (num_samples, B, *event), or None if they were streamed (keep_samples=False).
    misfit: (num_samples, B), |y - A x|^2 / (noise_std^2 num_measured), whose expectation is 1 for
    true posterior samples; misfit_mean: (B,), the same of the mean, which is lower. With noise_std
    0 both are |y - A x| / |y|, and misfit_kind is "relative" instead of "chi-square".
    prior_share: (B,), |x - R x|^2 / |x|^2 for the mean x, R = (A^T W A + I / v)^-1 A^T W A, v the
    prior's pixel variance: the share that the data did not determine.
    misfit_ok: (B,), whether the samples explain the data (posterior.misfit); warnings: what `solve`
    warned of, in words.
    nfe, vjps: network calls and vector-Jacobian products a sample. method: what ran, in words.
    examination: of the operator and its noise, where the method asks for it; its calls are apart.
    """

    samples: Tensor | None
    misfit: Tensor
    misfit_mean: Tensor
    misfit_kind: str
    prior_share: Tensor
    num_samples: int
    nfe: int
    vjps: int
    seconds: float
    method: str
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)
    streamed: tuple[Tensor, Tensor] | None = None
    examination: Examination | None = None
    misfit_ok: Tensor | None = None
    warnings: tuple[str, ...] = ()

    @property
    def mean(self) -> Tensor:
        """(B, *event): the mean of the samples."""
        return self.samples.mean(0) if self.samples is not None else self.streamed[0]  # type: ignore[index]

    @property
    def std(self) -> Tensor:
        """(B, *event): the standard deviation over samples, n - 1 in the denominator."""
        if self.num_samples < 2:
            raise ValueError("one sample has no standard deviation: ask for num_samples >= 2")
        return self.samples.std(0) if self.samples is not None else self.streamed[1]  # type: ignore[index]

    @property
    def forward_equivalents(self) -> int:
        """nfe + 2 vjps: the cost in network calls."""
        return self.nfe + 2 * self.vjps


class Collector:
    """Samples or running sums, in order of (item, sample), and what they cost."""

    def __init__(self, data: Measurement, prior: Prior, num_samples: int, keep: bool):
        self.data, self.prior, self.n = data, prior, num_samples
        event = data.like()
        self.samples = event.new_empty(num_samples, *event.shape) if keep else None
        self.misfit = event.new_empty(num_samples, len(data))
        self.peak = torch.empty_like(self.misfit)
        # Sums about each item's first sample do not cancel.
        self.first = torch.zeros_like(event)
        self.sums = torch.zeros(2, *event.shape, dtype=torch.float64)
        self.costs: list[tuple[int, int, int]] = []

    def add(self, chunk: list[tuple[int, int]], u: Tensor, misfit: Tensor, cost: Counter) -> None:
        """Rows (item, sample) of u and their misfits."""
        x = self.prior.to_data(u)
        for row, (i, s) in enumerate(chunk):
            self.misfit[s, i], self.peak[s, i] = misfit[row], u[row].abs().amax()
            if self.samples is not None:
                self.samples[s, i] = x[row]
                continue
            if s == 0:
                self.first[i] = x[row]
            change = (x[row] - self.first[i]).cpu().double()
            self.sums[0, i] += change
            self.sums[1, i] += change**2
        self.costs.append((len(chunk), cost.nfe, cost.vjps))

    def finish(self, **facts: Any) -> Reconstruction:
        """The Reconstruction of all that was added; facts: the fields that are not in it."""
        streamed = None if self.samples is not None else self._streamed()
        mean = self.samples.mean(0) if streamed is None else streamed[0]  # type: ignore[union-attr]
        u = self.prior.from_data(mean)
        variance = self.variance = pixel_variance(self.prior, u.shape[1:], u.dtype)
        rows = sum(cost[0] for cost in self.costs)
        nfe, vjps = (math.ceil(sum(c[0] * c[k] for c in self.costs) / rows) for k in (1, 2))
        return Reconstruction(
            samples=self.samples,
            misfit=self.misfit,
            misfit_mean=self.data.misfit(u),
            misfit_kind="relative" if self.data.exact else "chi-square",
            prior_share=prior_share(self.data.at(u), mean, variance),
            num_samples=self.n,
            nfe=nfe,
            vjps=vjps,
            streamed=streamed,
            **facts,
        )

    def _streamed(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation from the sums."""
        shift = self.sums[0] / self.n
        variance = (self.sums[1] - self.n * shift**2).clamp_min(0) / max(self.n - 1, 1)
        return self.first + shift.to(self.first), variance.sqrt().to(self.first)


def prior_share(data: LinearMeasurement, x: Tensor, variance: float) -> Tensor:
    """|x - R x|^2 / |x|^2, R = (A^T W A + I / v)^-1 A^T W A; A^+ A for exact data."""
    if data.exact:
        rest = x - data.pinv(data.operator(x))
    else:
        rest = data.solve(x, 1 / variance, tol=1e-3, max_iter=50) / variance
    power = x.square().flatten(1).sum(1).clamp_min(torch.finfo(x.dtype).tiny)
    return rest.square().flatten(1).sum(1) / power
