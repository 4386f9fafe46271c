"""Jalal et al. 2021: annealed Langevin dynamics with an annealed likelihood."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from operators.linalg import inner, per_item

from ...prior import Prior
from ...sde import Time
from ..conditional import Guided
from ..covariance import ratio_of
from ..measurement import LinearMeasurement
from ..method import Course, Method, by_score, check_positive


@dataclass(frozen=True)
class JalalOptions:
    """scale: the likelihood's step over the length of the prior's score; None the noise's own."""

    scale: float | None = None

    def __post_init__(self) -> None:
        check_positive("scale", self.scale)


class AnnealedLikelihood(Guided):
    """A^T (alpha y - A x_t) / (alpha^2 noise^2 + sigma^2 |A|^2)  (Jalal et al. 2021, eq. 4).

    Their gamma_t^2 is sigma^2 |A|^2 here, the spread of A x_t, so that no step is tuned. scale a
    number (preset "paper": 5): the released code's rule, the same direction rescaled to `scale`
    times the length of the prior's score.
    """

    def __init__(self, prior: Prior, data: LinearMeasurement, options: JalalOptions):
        super().__init__(prior, data)
        self.scale = options.scale

    def guidance(self, x: Tensor, t: Time, x0_hat: Tensor) -> Tensor:
        data = self.measurement_for(x)
        alpha, sigma, r = ratio_of(self, t, x)
        pull = data.gradient(x / alpha)
        if self.scale is None:
            spread = 1 + torch.as_tensor(r).to(data.gain) ** 2 * data.gain
            return pull / (alpha * per_item(spread, x))
        score = (alpha * x0_hat - x) / sigma**2
        size = (inner(score, score) / inner(pull, pull).clamp_min(1e-30)).sqrt()
        return self.scale * per_item(size, x) * pull


METHOD = Method(
    "jalal",
    JalalOptions,
    by_score(AnnealedLikelihood),
    Course("annealed-langevin", steps=100),
    conditional=AnnealedLikelihood,
    presets={"paper": {"scale": 5.0, "steps": 1155}},
)
