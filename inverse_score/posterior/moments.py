"""Moment matching: p(y | x_t) = N(A x0_hat, noise^2 + A C A^T), C = Cov[x_0 | x_t].

Finzi et al. 2023, Boys et al. 2023 (TMPD) and Rozet et al. 2024 (MMPS). With W = noise^-2,
E[x_0 | x_t, y] = x0_hat + (A^T W A + C^-1)^-1 A^T W (y - A x0_hat), which is exact for a Gaussian
prior and the exact C. The three classes differ in what they take for C. Each also draws what a
sampler's last x0_hat leaves out, the rest of x_0 about its mean at the last noise level:
N(0, (A^T W A + C^-1)^-1). Without it samples lack C / (C + noise^2) of a measured direction's
variance, 4 % where sampling ends at a fifth of the noise.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from operators.linalg import conjugate_gradient, inner, per_item

from ..prior import Prior
from ..randomness import OTHER, Noise
from ..sde import Time
from .conditional import ConditionalPrior
from .covariance import (
    ErrorSpectrum,
    gaussian_error,
    image_shape,
    pixel_variance,
    spectrum_of,
)
from .measurement import LinearMeasurement, Measurement
from .perturbation import gaussian_rest, unit_noise
from .preconditioning import Map, Preconditioner, mean_square

# The most by which data may inflate a prior's error spectrum.
LARGEST = 10.0


def churned(eta: float) -> dict[str, Any]:
    """The walk where C is not exact: the SDE whose law is that of the reverse SDE for every eta.

    (1 + eta^2) / 2 g^2 times the score is followed and eta g dw added, so that the state forgets
    what a wrong C did to it at higher noise, and the exact data term has the last word. The worse C
    is, the more is right; where C is right, longer steps lose by it (posteriors.md).
    """
    return {"sampler": "dpm++2m-sde", "sampler_options": {"eta": eta, "balanced": True}}


class SpectrumMatching(ConditionalPrior):
    """C = S F^T diag(c) F S: the prior's error spectrum c and local scale S at this level.

    Never differentiates the network. With N = A^T W A and R = S F^T c^1/2, C = R R^T, the step is
    R (R^T N R + I)^-1 R^T A^T W (y - A x0_hat), by CG with the preconditioner P of
    posterior.preconditioning. In the norm of P a residual of a unit is about one standard deviation
    of x_0 given x_t and y. CG stops an item at RMS residual tol sqrt(1 + r^2 / v), v the prior's
    pixel variance: what is wrong at r = sigma / alpha decays by (r_s / r)^2 until r_s^2 is about v,
    where details are decided, so early steps need no digits. With masks, MRI by whole columns and
    CT of many views that residual is about the error in the energy norm. It is several times less
    where P does not know what was measured (coils and a mask that mixes rows, CT of few or
    one-sided views); tol is divided by `Preconditioner.hidden` there.
    """

    walk: ClassVar[dict[str, Any]] = churned(1.5)

    def __init__(
        self,
        prior: Prior,
        data: LinearMeasurement,
        *,
        spectrum: ErrorSpectrum | None = None,
        tol: float = 1e-3,
        max_iter: int = 100,
    ):
        super().__init__(prior, data)
        spectrum = spectrum_of(prior) if spectrum is None else spectrum
        if spectrum is None:
            raise ValueError(
                "the prior's card has no error_spectrum: measure one on held-out images with "
                'inverse_score.posterior.error_spectrum, or use covariance="isotropic" or '
                '"jacobian"'
            )
        self.spectrum, self.tol, self.max_iter = spectrum, tol, max_iter
        self.precondition = Preconditioner(data, spectrum)
        self.variance = self.spectrum.mean_square(math.inf, data.like(1))

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        x0_hat = self.inner.denoise(x, t)
        residual = self.measurement_for(x).residual(x0_hat)
        data, solve = self.about(x0_hat, residual, self.sde.ratio(t))
        return x0_hat + solve(data.backproject(residual))

    def about(
        self, x0_hat: Tensor, residual: Tensor, ratio: Any
    ) -> tuple[LinearMeasurement, Map]:
        """The data, and b -> (A^T W A + C^-1)^-1 b with the C that explains y - A x0_hat."""
        data, F = self.measurement_for(x0_hat), self.spectrum
        c, S = F.of_strangers(ratio, x0_hat), F.scale(x0_hat, ratio)
        square = mean_square(S)
        c, S = inflated(c, S, self.inflation(data, residual, c, square.flatten()))
        scale = (1 + torch.as_tensor(ratio).to(self.variance) ** 2 / self.variance).sqrt()
        root, rms = c.sqrt(), self.tol * scale
        return data, lambda b: self.solve(data, c, S, root * F.forward(S * b), rms)

    def rest(self, x: Tensor, t: Time, noise: Noise) -> Tensor:
        """N(0, (A^T W A + C^-1)^-1) from a perturbed right-hand side (Papandreou & Yuille 2010)."""
        data, F, ratio = self.measurement_for(x), self.spectrum, self.sde.ratio(t)
        c, S = F.of_strangers(ratio, x), F.scale(x, ratio)
        told = F.forward(S * data.white_adjoint(unit_noise(data.y, noise, 0)))
        return self.solve(data, c, S, c.sqrt() * told + noise(x, 0, OTHER), self.tol)

    def solve(self, data: LinearMeasurement, c: Tensor, S: Tensor, b: Tensor, rms: Any) -> Tensor:
        """R (R^T N R + I)^-1 b, R = S F^T c^1/2: (N + C^-1)^-1 g for b = R^T g."""
        F, root = self.spectrum, c.sqrt()

        def matrix(z: Tensor) -> Tensor:
            return root * F.forward(S * data.normal(S * F.inverse(root * z))) + z

        z, _ = conjugate_gradient(
            matrix,
            b,
            precondition=self.precondition.at(c, S),
            tol=1e-6,
            rms=rms / self.precondition.hidden,
            max_iter=self.max_iter,
        )
        return S * F.inverse(root * z)

    def inflation(
        self, data: LinearMeasurement, residual: Tensor, c: Tensor, square: Tensor
    ) -> Tensor:
        """(B,) factor of s^2 c, s^2 = square (B,), that explains e = y - A x0_hat; 1 where it does.

        y given x_t has mean A x0_hat and covariance noise^2 + A C A^T, so that |e|_W^2 has mean
        m + tr C N and about the variance 2 m + 4 tr C N + 2 tr (C N)^2, m the numbers measured. c
        is a mean over held-out images and all their pixels; an image harder than these, or whose
        error gathers where few pixels are, shows it here (samples of a head at 4x were 1.16 noise
        standard deviations off their data, 1.02 with this, and their mean .5 dB better). Only what
        lies beyond five standard deviations counts: next to nothing of a scan's many numbers, and
        with few numbers chance never inflates a right c. At most to LARGEST times the larger of
        c and s^2 c, so that wrong coil maps are not taken for an image, but a flat x0_hat, whose s
        is small, can be wrong.
        """
        d = self.precondition.diagonal
        if d.ndim > c.ndim:
            d = torch.einsum("biihw->bihw", d)
        ratio = square[:, None] * (c * d).flatten(1)
        count = torch.as_tensor(data.operator.num_measured).to(ratio)
        white = data.weights.sqrt() * residual
        trace = ratio.sum(1)
        scatter = (2 * count + 4 * trace + 2 * ratio.square().sum(1)).sqrt()
        excess = inner(white, white) - count - 5 * scatter
        factor = excess / trace.clamp_min(torch.finfo(trace.dtype).tiny)
        return torch.minimum(factor.clamp_min(1.0), LARGEST / square.clamp_max(1.0))


def inflated(c: Tensor, S: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """c and S of `factor` (B,) times the variance.

    Nobody knows where in the image lies what c does not explain: it is added evenly.
    """
    factor = per_item(factor, c)
    return factor * c, ((S.square() + (factor - 1) * mean_square(S)) / factor).sqrt()


class IsotropicMatching(ConditionalPrior):
    """C = v_t I: a proximal step, in closed form where (A^T W A + rho I)^-1 has one.

    v_t: the mean of the error spectrum where the prior has one, else v r^2 / (v + r^2) with v the
    prior's pixel variance and r = sigma / alpha.
    """

    walk: ClassVar[dict[str, Any]] = churned(2.0)

    def __init__(self, prior: Prior, data: LinearMeasurement, *, variance: float | None = None):
        super().__init__(prior, data)
        self.error = IsotropicError(prior, data, variance)

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        x0_hat = self.inner.denoise(x, t)
        residual = self.measurement_for(x).residual(x0_hat)
        data, solve = self.about(x0_hat, residual, self.sde.ratio(t))
        return x0_hat + solve(data.backproject(residual))

    def about(self, x0_hat: Tensor, residual: Tensor, ratio: Any) -> tuple[LinearMeasurement, Map]:
        """The data, and b -> (A^T W A + I / v_t)^-1 b."""
        data, rho = self.measurement_for(x0_hat), 1 / self.error(ratio)
        return data, lambda b: data.solve(b, rho)

    def rest(self, x: Tensor, t: Time, noise: Noise) -> Tensor:
        """N(0, (A^T W A + I / v_t)^-1)."""
        variance = self.error(self.sde.ratio(t))
        return gaussian_rest(self.measurement_for(x), x, variance, noise)


class IsotropicError:
    """v_t, the mean variance of x_0 given x_t per element, as a function of r = sigma / alpha."""

    def __init__(self, prior: Prior, data: Measurement, variance: float | None = None):
        if variance is not None and not variance > 0:
            raise ValueError(f"variance must be positive; got {variance}")
        shape = image_shape(prior, data.operator.in_shape)
        self.like = torch.empty(1, *shape, dtype=data.y.real.dtype)
        self.spectrum = spectrum_of(prior) if variance is None and len(shape) == 3 else None
        self.variance = variance
        if variance is None and self.spectrum is None:
            self.variance = pixel_variance(prior, data.operator.in_shape, data.y.real.dtype)

    def __call__(self, ratio: Any) -> Any:
        """A float for a float ratio, (B,) for (B,)."""
        if self.spectrum is None:
            return gaussian_error(self.variance, ratio)
        value = self.spectrum.mean_square(ratio, self.like)
        return value.to(ratio) if isinstance(ratio, Tensor) else float(value)
