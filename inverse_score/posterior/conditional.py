"""A posterior is a prior with another score: what all conditional scores share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..prior import Prior, Wrapped
from ..randomness import Noise
from ..sde import Time
from .covariance import ratio_of
from .measurement import LinearMeasurement, Measurement

LogProb = Callable[[Tensor, Time], Tensor]


class ConditionalPrior(Wrapped):
    """The prior given y: same SDE, units and network, and a denoiser E[x_0 | x_t, y].

    Subclasses give `denoise`; score = (alpha denoise - x) / sigma^2 (Tweedie).
    """

    def __init__(self, prior: Prior, data: Measurement | None = None):
        super().__init__(prior)
        # A method that takes no other data sees a linear measurement here.
        self.data: Any = data

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no denoiser")

    def score(self, x: Tensor, t: Time) -> Tensor:
        alpha, sigma, _ = ratio_of(self, t, x)
        return (alpha * self.denoise(x, t) - x) / sigma**2

    def rest(self, x: Tensor, t: Time, noise: Noise) -> Tensor:
        """A draw of x_0 about E[x_0 | x_t, y], which is where sampling ends at t; here none."""
        return torch.zeros_like(x)

    def measurement_for(self, x: Tensor) -> LinearMeasurement:
        """The data of x's rows; ValueError unless there is one measurement a row."""
        if self.data is None or len(self.data) != x.shape[0]:
            count = 0 if self.data is None else len(self.data)
            raise ValueError(
                f"this posterior holds {count} measurements, one a row; got a batch {x.shape[0]}: "
                "repeat y (and the operator's items) to draw several samples of each"
            )
        return self.data


class Guided(ConditionalPrior):
    """score + guidance(x, t, x0_hat): methods that give the likelihood's score and no Jacobian."""

    def guidance(self, x: Tensor, t: Time, x0_hat: Tensor) -> Tensor:
        """The approximate grad log p(y | x_t), of x's shape."""
        raise NotImplementedError(f"{type(self).__name__} has no guidance")

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        """x0_hat + (sigma^2 / alpha) guidance: one call of the prior."""
        alpha, sigma, _ = ratio_of(self, t, x)
        x0_hat = self.inner.denoise(x, t)
        return x0_hat + sigma**2 / alpha * self.guidance(x, t, x0_hat)


class Guide(Guided):
    """score + scale * grad_x log_prob(x, t): classifier guidance (Dhariwal & Nichol 2021)."""

    def __init__(self, prior: Prior, log_prob: LogProb, scale: float):
        super().__init__(prior)
        self.log_prob, self.scale = log_prob, scale

    def guidance(self, x: Tensor, t: Time, x0_hat: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = self.log_prob(x, t)
            if value.shape != x.shape[:1]:
                raise ValueError(
                    f"log_prob must return one number an item, ({x.shape[0]},); got "
                    f"{tuple(value.shape)}"
                )
            (gradient,) = torch.autograd.grad(value.sum(), x)
        return self.scale * gradient


def guide(prior: Prior, log_prob: LogProb, *, scale: float = 1.0) -> Prior:
    """The prior with score + scale * grad_x log_prob(x_t, t), such as a classifier's.

    log_prob(x, t): x (B, *event) in the prior's units u, t a float or (B,); returns (B,), item by
    item, differentiable in x. scale 1 is Bayes' rule; larger trades diversity for agreement.
    """
    if not torch.isfinite(torch.tensor(float(scale))):
        raise ValueError(f"scale must be finite; got {scale}")
    return Guide(prior, log_prob, float(scale))


def denoise_with_vjp(prior: Prior, x: Tensor, t: Time) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """x0_hat and v -> J^T v, J = d x0_hat / d x: one call, then one vjp a product."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        x0_hat = prior.denoise(leaf, t)
    if not x0_hat.requires_grad:
        raise ValueError(
            "the prior's network does not differentiate (its output has no graph): use "
            'covariance="spectrum" or "isotropic", or budget="fast"'
        )

    def vjp(v: Tensor) -> Tensor:
        (product,) = torch.autograd.grad(x0_hat, leaf, v, retain_graph=True)
        return product

    return x0_hat.detach(), vjp
