"""Moment matching with the network's own covariance, C = (sigma^2 / alpha) J, J = d x0_hat / d x_t.

Tweedie's second-order formula makes C the covariance of x_0 given x_t where the network is exact.
A trained network's is neither symmetric (by 10 to 30 % of its norm) nor positive: conjugate
gradients on it diverge, or return garbage. So C is asked only for products, one vector-Jacobian
product each, is believed only where they show positive variance, and C_0, the error spectrum's or
v_t I, stands in elsewhere. What this gives is symmetric and positive semidefinite whatever J is.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from operators.linalg import inner, per_item

from ..prior import Prior
from ..randomness import Noise
from ..sde import Time
from .conditional import ConditionalPrior, denoise_with_vjp
from .covariance import ratio_of, spectrum_of
from .measurement import LinearMeasurement
from .moments import IsotropicError, IsotropicMatching, SpectrumMatching, churned
from .perturbation import gaussian_rest
from .preconditioning import Map

# A direction of which less than this is new says nothing new.
_NEW = 1e-5
# An eigenvalue above minus this share of the largest is rounding; networks' errors are percents.
_ROUNDING = 1e-4
# Standard deviations that data do not lie off: real images have up to ten, spurious variances 100.
_FAR = 15.0
# So many products that do not shrink what is left by so much are the last, where K - K^T shows
# that C is no covariance. Closed forms differ from symmetric by 1e-7, networks by .05 to .3.
_IDLE, _GAIN, _SYMMETRIC = 3, 0.8, 1e-3


class JacobianMatching(ConditionalPrior):
    """x0_hat + C B^T w, (I + B C B^T) w = W^(1/2) (y - A x0_hat), B = W^(1/2) A: see `matched`.

    tol: stops an item at an error of tol sqrt(1 + r^2 / v) posterior standard deviations, as
    `SpectrumMatching` does; v is 1 without an error spectrum. max_iter: the most products, one vjp
    each, a step; what they leave is C_0's. Each keeps two numbers a measured number and one a pixel
    until the step is done.
    """

    walk: ClassVar[dict[str, Any]] = churned(1.5)

    def __init__(
        self, prior: Prior, data: LinearMeasurement, *, tol: float = 3e-3, max_iter: int = 40
    ):
        super().__init__(prior, data)
        self.tol, self.max_iter = tol, max_iter
        spectrum = spectrum_of(prior)
        self.base: SpectrumMatching | IsotropicMatching
        if spectrum is not None and spectrum.describes(data.operator.in_shape):
            self.base = SpectrumMatching(prior, data, spectrum=spectrum, tol=tol)
        else:
            self.base = IsotropicMatching(prior, data)

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        alpha, sigma, ratio = ratio_of(self, t, x)
        x0_hat, vjp = denoise_with_vjp(self.inner, x, t)
        residual = self.measurement_for(x).residual(x0_hat)
        data, solve = self.base.about(x0_hat, residual, ratio)
        white = data.weights.sqrt() * residual

        def covariance(s: Tensor) -> Tensor:
            return sigma**2 / alpha * vjp(s)

        return x0_hat + matched(data, covariance, solve, white, self._rms(ratio), self.max_iter)

    def _rms(self, ratio: Any) -> Any:
        variance = torch.as_tensor(getattr(self.base, "variance", 1.0))
        return self.tol * (1 + torch.as_tensor(ratio).to(variance) ** 2 / variance).sqrt()

    def rest(self, x: Tensor, t: Time, noise: Noise) -> Tensor:
        """N(0, (A^T W A + I / v)^-1): J has no cheap root; C is nearly v I where a grid ends."""
        variance = IsotropicError(self.inner, self.data)(self.sde.ratio(t))  # type: ignore[arg-type]
        return gaussian_rest(self.measurement_for(x), x, variance, noise)


def matched(
    data: LinearMeasurement, covariance: Map, solve: Map, r: Tensor, rms: Any, most: int
) -> Tensor:
    """C B^T (I + B C B^T)^-1 r from at most `most` products C s, and C_0's answer to what is left.

    solve: b -> (A^T W A + C_0^-1)^-1 b, which preconditions: the next direction asked for is
    (I + B C_0 B^T)^-1 of the residual. For a symmetric positive C these are preconditioned
    conjugate gradients (Hestenes & Stiefel 1952) with all directions kept, and exact. An item
    stops for itself, so that its result does not depend on the batch: where the step that C_0 would
    still make is below rms (B,) or a float posterior standard deviations; at the first negative
    variance, or after three products that do not shrink that step while K is not symmetric: beyond
    these the network's C is its errors. Of its iterates, C_0's own answer the first, an item gets
    the one that leaves C_0 least to do.
    """
    asked = _Asked(data, covariance, r)
    answer, least = asked.step, r.real.new_full((len(r),), math.inf)
    idle = torch.zeros(len(r), dtype=torch.int64, device=r.device)
    for k in range(most + 1):
        b = data.white_adjoint(asked.left)
        e = solve(b)
        size = inner(b, e)
        better = size < least
        idle = torch.where(size < _GAIN * least, 0, idle + 1)
        answer = torch.where(per_item(better, e) > 0, asked.step + e, answer)
        least = torch.where(better, size, least)
        enough = torch.as_tensor(rms).to(b) ** 2 * b[0].numel()
        active = asked.positive & (size > enough) & ((idle < _IDLE) | asked.symmetric)
        if k == most or not bool(active.any()):
            break
        asked.ask(asked.left - data.white(e), active)
    return answer


class _Asked:
    """K = B C B^T on the span of orthonormal directions V, in which it is positive semidefinite.

    T = (V^T K V + its transpose) / 2 is V^T (K + K^T) V / 2, so that the products with C^T that a
    vjp gives do for the symmetric part too. Eigenvectors of T with a negative variance get nothing
    from C, and set `positive` to False. A variance so small that r lies over fifteen standard
    deviations out, r_u^2 > 225 (1 + T_u), is raised to what r shows: networks know a small variance
    beside a large one least. step = C B^T V a with a = (I + T_+)^-1 V^T r, left = r - (I + K) V a.
    """

    def __init__(self, data: LinearMeasurement, covariance: Map, r: Tensor):
        self.data, self.covariance, self.r = data, covariance, r
        self.V: list[Tensor] = []
        self.CBV: list[Tensor] = []
        self.KV: list[Tensor] = []
        self.step, self.left = torch.zeros_like(data.white_adjoint(r)), r
        self.a = r.real.new_zeros(len(r), 0)
        self.positive = torch.ones(len(r), dtype=torch.bool, device=r.device)
        self.symmetric = self.positive

    def outside(self, r: Tensor) -> Tensor:
        """r less its part in the span."""
        for v in self.V:
            r = r - per_item(inner(v, r), r) * v
        return r

    def ask(self, direction: Tensor, active: Tensor) -> None:
        """Take a direction into the span of the items that are active; one product with C."""
        v = self.outside(self.outside(direction))
        size, before = (inner(w, w).sqrt() for w in (v, direction))
        v = per_item(torch.where(active & (size > _NEW * before), 1 / size, 0.0), v) * v
        self.V.append(v)
        self.CBV.append(self.covariance(self.data.white_adjoint(v)))
        self.KV.append(self.data.white(self.CBV[-1]))
        # An item that has stopped keeps its answer, bit for bit.
        old = torch.cat([self.a, self.a.new_zeros(len(self.a), 1)], 1)
        self.a = torch.where(active[:, None], self._coefficients(), old)
        self.step = _combined(self.CBV, self.a)
        self.left = self.r - _combined(self.V, self.a) - _combined(self.KV, self.a)

    def _coefficients(self) -> Tensor:
        """(I + T_+)^-1 V^T r in T's positive part, (B, k)."""
        K = torch.stack([torch.stack([inner(v, w) for w in self.KV], 1) for v in self.V], 1)
        told = torch.stack([inner(v, self.r) for v in self.V], 1)
        skew = (K - K.mT).flatten(1).norm(dim=1) / (K + K.mT).flatten(1).norm(dim=1)
        self.symmetric = skew <= _SYMMETRIC
        # Not every device has double precision; K is a few numbers.
        values, vectors = torch.linalg.eigh((K + K.mT).cpu().double() / 2)
        negative = values[:, 0] < -_ROUNDING * values.abs().amax(1)
        self.positive = self.positive & ~negative.to(self.positive.device)
        told = (vectors.mT @ told.cpu().double()[..., None])[..., 0]
        variance = torch.maximum(1 + values, told.square() / _FAR**2)
        a = vectors @ torch.where(values > 0, told / variance, 0.0)[..., None]
        return a[..., 0].to(self.a)


def _combined(parts: list[Tensor], a: Tensor) -> Tensor:
    """sum_j a_j parts_j, a (B, k)."""
    return sum((per_item(a[:, j], part) * part for j, part in enumerate(parts)), torch.tensor(0.0))


COVARIANCES = {
    "jacobian": JacobianMatching,
    "spectrum": SpectrumMatching,
    "isotropic": IsotropicMatching,
}
