"""What `solve` returns: samples, mean and spread, how well they explain the data, the cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


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
