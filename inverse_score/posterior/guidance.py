"""Likelihood scores grad log p(y | x_t) that approximate p(x_0 | x_t) or the noisy data's law.

r = sigma / alpha throughout, W = noise^-2, and v_t the mean variance of x_0 given x_t.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from operators.linalg import inner, per_item

from ..prior import Prior
from ..sde import Time
from .conditional import ConditionalPrior, Guided, denoise_with_vjp
from .covariance import ratio_of
from .measurement import Measurement
from .moments import IsotropicError


class PseudoinverseGuidance(ConditionalPrior):
    """PiGDM: J^T A^T (v_t A A^T + noise^2)^-1 (y - A x0_hat)  (Song et al. 2023, eq. 7 and 8).

    v_t comes from the prior; preset "paper" sets r^2 / (1 + r^2), the paper's choice, which is
    that of a prior of unit pixel variance. One vjp a call.
    """

    def __init__(self, prior: Prior, data: Measurement, *, variance: float | None = None):
        super().__init__(prior, data)
        self.error = IsotropicError(prior, data, variance)

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        data = self.measurement_for(x)
        alpha, sigma, r = ratio_of(self, t, x)
        x0_hat, vjp = denoise_with_vjp(self.inner, x, t)
        v = self.error(r)
        # A^T (v A A^T + W^-1)^-1 e = (v A^T W A + I)^-1 A^T W e.
        pulled = data.solve(data.gradient(x0_hat), 1 / v)
        return x0_hat + sigma**2 / alpha * vjp(pulled / per_item(_tensor(v), x))


class PosteriorSampling(ConditionalPrior):
    """DPS: the gradient with respect to x_t of a function of |y - A x0_hat| (Chung et al. 2023).

    weight None (default): grad of -|y - A x0_hat|^2 / (2 (noise^2 + v_t |A|^2)), the Gaussian
    likelihood with the largest variance that A leaves of v_t, so that no step depends on the
    data's scale. weight a number (preset "paper": 1): the paper's zeta / |y - A x0_hat|, in the
    form -zeta (1000 / g^2) grad |y - A x0_hat|, which "ancestral" with 1000 uniform steps turns
    into x_{i-1} - zeta grad |y - A x0_hat| of its algorithm 1. One vjp a call.
    """

    def __init__(
        self,
        prior: Prior,
        data: Measurement,
        *,
        weight: float | None = None,
        variance: float | None = None,
    ):
        super().__init__(prior, data)
        if weight is not None and not weight > 0:
            raise ValueError(f"weight must be positive; got {weight}")
        self.weight = weight
        self.error = None if weight is not None else IsotropicError(prior, data, variance)

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        data = self.measurement_for(x)
        alpha, sigma, r = ratio_of(self, t, x)
        x0_hat, vjp = denoise_with_vjp(self.inner, x, t)
        if self.error is None:
            pulled = self._paper(data, x0_hat, t)
        else:
            gain = data.at(x0_hat).gain
            share = 1 / (1 + _tensor(self.error(r)).to(gain) * gain)
            pulled = per_item(share, x) * data.gradient(x0_hat)
        return x0_hat + sigma**2 / alpha * vjp(pulled)

    def _paper(self, data: Measurement, x0_hat: Tensor, t: Time) -> Tensor:
        """(1000 zeta / (T g^2)) A^T (y - A x0_hat) / |y - A x0_hat|, in y's own units."""
        e = data.residual(x0_hat)
        size = inner(e, e).sqrt().clamp_min(torch.finfo(x0_hat.dtype).tiny)
        step = 1000 * self.weight / (self.sde.T * _tensor(self.sde.g(t)) ** 2)  # type: ignore[operator]
        return per_item((step / size).to(size), x0_hat) * data.pullback(x0_hat, e)


class NoisyLikelihood(Guided):
    """A^T (sigma^2 A A^T + alpha^2 noise^2)^-1 (alpha y - A x_t)  (Song et al. 2021, app. I.4).

    The law of A x_t - alpha y = sigma A z - alpha n, as if A x_t had no other spread about
    alpha A x_0: no Jacobian, and no vjp. The original draws the perturbed y; this is its mean.
    """

    def __init__(self, prior: Prior, data: Measurement):
        super().__init__(prior, data)

    def guidance(self, x: Tensor, t: Time, x0_hat: Tensor) -> Tensor:
        data = self.measurement_for(x)
        alpha, _, r = ratio_of(self, t, x)
        # With e = y - A x / alpha: (1 / alpha) (r^2 N + I)^-1 A^T W e, N = A^T W A.
        e = data.gradient(x / alpha)
        solved = data.solve(e, _tensor(r).to(e) ** -2)
        return solved / (alpha * per_item(_tensor(r).to(e), e) ** 2)


class AnnealedLikelihood(Guided):
    """A^T (alpha y - A x_t) / (alpha^2 noise^2 + sigma^2 |A|^2)  (Jalal et al. 2021, eq. 4).

    Their gamma_t^2 is sigma^2 |A|^2 here, the spread of A x_t, so that no step is tuned. scale a
    number (preset "paper": 5): the released code's rule, the same direction rescaled to `scale`
    times the length of the prior's score.
    """

    def __init__(self, prior: Prior, data: Measurement, *, scale: float | None = None):
        super().__init__(prior, data)
        if scale is not None and not scale > 0:
            raise ValueError(f"scale must be positive; got {scale}")
        self.scale = scale

    def guidance(self, x: Tensor, t: Time, x0_hat: Tensor) -> Tensor:
        data = self.measurement_for(x)
        alpha, sigma, r = ratio_of(self, t, x)
        pull = data.gradient(x / alpha)
        if self.scale is None:
            spread = 1 + _tensor(r).to(data.gain) ** 2 * data.gain
            return pull / (alpha * per_item(spread, x))
        score = (alpha * x0_hat - x) / sigma**2
        size = (inner(score, score) / inner(pull, pull).clamp_min(1e-30)).sqrt()
        return self.scale * per_item(size, x) * pull


def _tensor(value: Any) -> Tensor:
    return torch.as_tensor(value)
