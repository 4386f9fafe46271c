"""Song et al. 2021: the score of the noisy data's law, without a Jacobian."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.linalg import per_item

from ...prior import Prior
from ...sde import Time
from ..conditional import Guided
from ..covariance import ratio_of
from ..measurement import LinearMeasurement
from ..method import Method, NoOptions, by_score


class NoisyLikelihood(Guided):
    """A^T (sigma^2 A A^T + alpha^2 noise^2)^-1 (alpha y - A x_t)  (Song et al. 2021, app. I.4).

    The law of A x_t - alpha y = sigma A z - alpha n, as if A x_t had no other spread about
    alpha A x_0: no Jacobian, and no vjp. The original draws the perturbed y; this is its mean.
    """

    def __init__(self, prior: Prior, data: LinearMeasurement, options: NoOptions):
        super().__init__(prior, data)

    def guidance(self, x: Tensor, t: Time, x0_hat: Tensor) -> Tensor:
        data = self.measurement_for(x)
        alpha, _, r = ratio_of(self, t, x)
        # With e = y - A x / alpha: (1 / alpha) (r^2 N + I)^-1 A^T W e, N = A^T W A.
        e = data.gradient(x / alpha)
        solved = data.solve(e, torch.as_tensor(r).to(e) ** -2)
        return solved / (alpha * per_item(torch.as_tensor(r).to(e), e) ** 2)


METHOD = Method(
    "song21",
    NoOptions,
    by_score(NoisyLikelihood),
    conditional=NoisyLikelihood,
    presets={"paper": {"sampler": "pc", "steps": 1000}},
)
