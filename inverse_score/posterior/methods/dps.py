"""DPS: the gradient of the misfit of x0_hat, through the network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from operators.linalg import inner, per_item

from ...prior import Prior
from ...sde import Time
from ..conditional import ConditionalPrior, denoise_with_vjp
from ..covariance import ratio_of
from ..measurement import Measurement
from ..method import Method, by_score, check_positive
from ..moments import IsotropicError


@dataclass(frozen=True)
class DPSOptions:
    """weight: the paper's zeta, None the Gaussian likelihood's; variance: of a pixel, in v_t."""

    weight: float | None = None
    variance: float | None = None

    def __post_init__(self) -> None:
        check_positive("weight", self.weight)
        check_positive("variance", self.variance)


class PosteriorSampling(ConditionalPrior):
    """DPS: the gradient with respect to x_t of a function of |y - A x0_hat| (Chung et al. 2023).

    weight None (default): grad of -|y - A x0_hat|^2 / (2 (noise^2 + v_t |A|^2)), the Gaussian
    likelihood with the largest variance that A leaves of v_t, so that no step depends on the
    data's scale. weight a number (preset "paper": 1): the paper's zeta / |y - A x0_hat|, in the
    form -zeta (1000 / g^2) grad |y - A x0_hat|, which "ancestral" with 1000 uniform steps turns
    into x_{i-1} - zeta grad |y - A x0_hat| of its algorithm 1. One vjp a call.
    """

    def __init__(self, prior: Prior, data: Measurement, options: DPSOptions):
        super().__init__(prior, data)
        self.weight, self.error = options.weight, None
        if self.weight is None:
            self.error = IsotropicError(prior, data, options.variance)

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        data = self.measurement_for(x)
        alpha, sigma, r = ratio_of(self, t, x)
        x0_hat, vjp = denoise_with_vjp(self.inner, x, t)
        if self.error is None:
            pulled = self._paper(data, x0_hat, t)
        else:
            gain = data.at(x0_hat).gain
            share = 1 / (1 + torch.as_tensor(self.error(r)).to(gain) * gain)
            pulled = per_item(share, x) * data.gradient(x0_hat)
        return x0_hat + sigma**2 / alpha * vjp(pulled)

    def _paper(self, data: Measurement, x0_hat: Tensor, t: Time) -> Tensor:
        """(1000 zeta / (T g^2)) A^T (y - A x0_hat) / |y - A x0_hat|, in y's own units."""
        e = data.residual(x0_hat)
        size = inner(e, e).sqrt().clamp_min(torch.finfo(x0_hat.dtype).tiny)
        step = 1000 * self.weight / (self.sde.T * torch.as_tensor(self.sde.g(t)) ** 2)  # type: ignore[operator]
        return per_item((step / size).to(size), x0_hat) * data.pullback(x0_hat, e)


METHOD = Method(
    "dps",
    DPSOptions,
    by_score(PosteriorSampling),
    conditional=PosteriorSampling,
    differentiates=True,
    nonlinear=True,
    presets={"paper": {"weight": 1.0, "sampler": "ancestral", "steps": 1000, "kind": "uniform"}},
)
