"""PiGDM: the likelihood's score by a pseudo-inverse and one vector-Jacobian product."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from operators.linalg import per_item

from ...prior import Prior
from ...sde import Time
from ..conditional import ConditionalPrior, denoise_with_vjp
from ..covariance import ratio_of
from ..measurement import LinearMeasurement
from ..method import Method, by_score, check_positive
from ..moments import IsotropicError


@dataclass(frozen=True)
class PiGDMOptions:
    """variance: the prior's pixel variance in v_t; None asks the prior."""

    variance: float | None = None

    def __post_init__(self) -> None:
        check_positive("variance", self.variance)


class PseudoinverseGuidance(ConditionalPrior):
    """PiGDM: J^T A^T (v_t A A^T + noise^2)^-1 (y - A x0_hat)  (Song et al. 2023, eq. 7 and 8).

    v_t comes from the prior; preset "paper" sets r^2 / (1 + r^2), the paper's choice, which is
    that of a prior of unit pixel variance. One vjp a call.
    """

    def __init__(self, prior: Prior, data: LinearMeasurement, options: PiGDMOptions):
        super().__init__(prior, data)
        self.error = IsotropicError(prior, data, options.variance)

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        data = self.measurement_for(x)
        alpha, sigma, r = ratio_of(self, t, x)
        x0_hat, vjp = denoise_with_vjp(self.inner, x, t)
        v = self.error(r)
        # A^T (v A A^T + W^-1)^-1 e = (v A^T W A + I)^-1 A^T W e.
        pulled = data.solve(data.gradient(x0_hat), 1 / v)
        return x0_hat + sigma**2 / alpha * vjp(pulled / per_item(torch.as_tensor(v), x))


METHOD = Method(
    "pigdm",
    PiGDMOptions,
    by_score(PseudoinverseGuidance),
    conditional=PseudoinverseGuidance,
    differentiates=True,
    presets={"paper": {"variance": 1.0, "sampler": "ddim", "steps": 100, "kind": "uniform"}},
)
