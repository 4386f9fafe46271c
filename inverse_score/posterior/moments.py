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
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from operators.linalg import conjugate_gradient, inner

from ..prior import Prior
from ..randomness import OTHER, Noise
from ..sde import Time, per_item
from .conditional import ConditionalPrior, denoise_with_vjp
from .covariance import (
    ErrorSpectrum,
    gaussian_error,
    image_shape,
    pixel_variance,
    ratio_of,
    spectrum_of,
)
from .measurement import Measurement
from .perturbation import gaussian_rest, unit_noise

# The most by which data may inflate a prior's error spectrum.
LARGEST = 10.0


def churned(eta: float) -> dict[str, Any]:
    """The walk where C is not exact: the SDE whose law is that of the reverse SDE for every eta.

    (1 + eta^2) / 2 g^2 times the score is followed and eta g dw added, so that the state forgets
    what a wrong C did to it at higher noise, and the exact data term has the last word. The worse C
    is, the more is right; where C is right, longer steps lose by it (posteriors.md).
    """
    return {"sampler": "dpm++2m-sde", "sampler_options": {"eta": eta}}


class JacobianMatching(ConditionalPrior):
    """C = (sigma^2 / alpha) J, J = d x0_hat / d x_t: exact up to the network's own error.

    Solves (I + B C B^T) w = W^(1/2) (y - A x0_hat), B = W^(1/2) A, by CG item by item, then
    x0_hat + C B^T w. Each iteration costs one vector-Jacobian product, and one more at the end.
    tol: relative residual at which an item stops.
    """

    walk: ClassVar[dict[str, Any]] = {"sampler": "dpm++2m"}

    def __init__(self, prior: Prior, data: Measurement, *, tol: float = 1e-3, max_iter: int = 50):
        super().__init__(prior, data)
        self.tol, self.max_iter = tol, max_iter

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        data = self.measurement_for(x)
        alpha, sigma, _ = ratio_of(self, t, x)
        x0_hat, vjp = denoise_with_vjp(self.inner, x, t)

        def covariance(v: Tensor) -> Tensor:
            return sigma**2 / alpha * vjp(v)

        def matrix(w: Tensor) -> Tensor:
            return w + data.white(covariance(data.white_adjoint(w)))

        r = data.weights.sqrt() * data.residual(x0_hat)
        w, _ = conjugate_gradient(matrix, r, tol=self.tol, max_iter=self.max_iter)
        return x0_hat + covariance(data.white_adjoint(w))

    def rest(self, x: Tensor, t: Time, noise: Noise) -> Tensor:
        """N(0, (A^T W A + I / v)^-1): J has no cheap root; C is nearly v I where a grid ends."""
        variance = IsotropicError(self.inner, self.data)(self.sde.ratio(t))
        return gaussian_rest(self.measurement_for(x), x, variance, noise)


class SpectrumMatching(ConditionalPrior):
    """C = S F^T diag(c) F S: the prior's error spectrum c and local scale S at this level.

    Never differentiates the network. With N = A^T W A and R = S F^T c^1/2, C = R R^T, the step is
    R P (P R^T N R P + P P)^-1 P R^T A^T W (y - A x0_hat), P = (I + c s^2 d)^-1/2, s^2 the mean of
    S^2, d the diagonal of N in F, or its blocks over the channels where A mixes them: CG on a
    matrix that is I plus the rest of N, exact at once where N has no more in the DCT either and
    S = I. In these coordinates an error of a unit is about one standard deviation of x_0 given x_t
    and y. CG stops an item at RMS residual tol sqrt(1 + r^2 / v), v the prior's pixel variance:
    what is wrong at r = sigma / alpha decays by (r_s / r)^2 until r_s^2 is about v, where details
    are decided, so early steps need no digits.
    """

    walk: ClassVar[dict[str, Any]] = churned(1.5)

    def __init__(
        self,
        prior: Prior,
        data: Measurement,
        *,
        spectrum: ErrorSpectrum | None = None,
        tol: float = 1e-3,
        max_iter: int = 100,
    ):
        super().__init__(prior, data)
        self.spectrum = spectrum_of(prior) if spectrum is None else spectrum
        if self.spectrum is None:
            raise ValueError(
                "the prior's card has no error_spectrum: measure one on held-out images with "
                'inverse_score.posterior.error_spectrum, or use covariance="isotropic" or '
                '"jacobian"'
            )
        self.tol, self.max_iter = tol, max_iter
        self.diagonal = normal_diagonal(data, self.spectrum)
        self.variance = self.spectrum.mean_square(math.inf, data._event(1))

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        data, F, ratio = self.measurement_for(x), self.spectrum, self.sde.ratio(t)
        x0_hat = self.inner.denoise(x, t)
        c, S = F.at(ratio, x), F.scale(x0_hat, ratio)
        residual = data.residual(x0_hat)
        square = _mean_square(S)
        factor = per_item(self.inflation(data, residual, c, square.flatten()), c)
        # Nobody knows where in the image lies what c does not explain: it is added evenly.
        c, S = factor * c, ((S.square() + (factor - 1) * square) / factor).sqrt()
        told = c.sqrt() * F.forward(S * data.backproject(residual))
        return x0_hat + self._solve(data, c, S, told, t)

    def rest(self, x: Tensor, t: Time, noise: Noise) -> Tensor:
        """N(0, (A^T W A + C^-1)^-1) from a perturbed right-hand side (Papandreou & Yuille 2010)."""
        data, F, ratio = self.measurement_for(x), self.spectrum, self.sde.ratio(t)
        c, S = F.at(ratio, x), F.scale(x, ratio)
        told = F.forward(S * data.white_adjoint(unit_noise(data.y, noise, 0)))
        return self._solve(data, c, S, c.sqrt() * told + noise(x, 0, OTHER), t)

    def _solve(self, data: Measurement, c: Tensor, S: Tensor, b: Tensor, t: Time) -> Tensor:
        """R (R^T N R + I)^-1 b, R = S F^T c^1/2: (N + C^-1)^-1 g for b = R^T g."""
        F, root = self.spectrum, c.sqrt()
        white = whitening(c * _mean_square(S), self.diagonal)

        def matrix(z: Tensor) -> Tensor:
            v = white(z)
            return white(root * F.forward(S * data.normal(S * F.inverse(root * v))) + v)

        b = white(b)
        rms = b.square().flatten(1).mean(1).sqrt().clamp_min(torch.finfo(b.dtype).tiny)
        slack = (1 + torch.as_tensor(self.sde.ratio(t)).to(rms) ** 2 / self.variance).sqrt()
        tol = (self.tol * slack / rms).clamp(1e-6, 1.0)
        z, _ = conjugate_gradient(matrix, b, tol=tol, max_iter=self.max_iter)
        return S * F.inverse(root * white(z))

    def inflation(self, data: Measurement, residual: Tensor, c: Tensor, square: Tensor) -> Tensor:
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
        d = self.diagonal
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


class IsotropicMatching(ConditionalPrior):
    """C = v_t I: a proximal step, in closed form where (A^T W A + rho I)^-1 has one.

    v_t: the mean of the error spectrum where the prior has one, else v r^2 / (v + r^2) with v the
    prior's pixel variance and r = sigma / alpha.
    """

    walk: ClassVar[dict[str, Any]] = churned(2.0)

    def __init__(self, prior: Prior, data: Measurement, *, variance: float | None = None):
        super().__init__(prior, data)
        self.error = IsotropicError(prior, data, variance)

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        data = self.measurement_for(x)
        x0_hat = self.inner.denoise(x, t)
        return x0_hat + data.solve(data.gradient(x0_hat), 1 / self.error(self.sde.ratio(t)))

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


def _mean_square(S: Tensor) -> Tensor:
    """The mean of s^2 over an item's pixels, (B, 1, 1, 1)."""
    return S.square().mean((1, 2, 3), keepdim=True)


def normal_diagonal(data: Measurement, spectrum: ErrorSpectrum, probes: int = 4) -> Tensor:
    """The diagonal of F A^T W A F^T, (B, C, H, W), from z * (F N F^T z) with random signs z.

    Exact where N is diagonal there (all probes agree); else smoothed over neighbours, since each
    probe carries the off-diagonal part as noise. Where A mixes channels: (B, C, C, H, W), all
    products of two channels at a coefficient, from probes of one channel at a time.
    """
    like = data._event(1)
    noise = Noise(0, [0])
    channels = like.shape[1]

    def probe(k: int, lit: Tensor) -> tuple[Tensor, Tensor]:
        """Random signs z in the lit channels, and F N F^T z: (1, C, H, W), (B, C, H, W)."""
        z = noise.rademacher(like, k) * lit[:, None, None]
        own = z.expand(len(data), *like.shape[1:]).contiguous()
        return z, spectrum.forward(data.normal(spectrum.inverse(own)))

    def averaged(draws: list[Tensor]) -> Tensor:
        stacked = torch.stack(draws)
        mean = stacked.mean(0)
        scatter = (stacked - mean).square().flatten(2).mean((0, 2)).sqrt()
        exact = scatter < 1e-3 * mean.abs().flatten(1).mean(1).clamp_min(1e-30)
        padded = torch.nn.functional.pad(mean, (2, 2, 2, 2), mode="replicate")
        smooth = torch.nn.functional.avg_pool2d(padded, 5, stride=1)
        return torch.where(per_item(exact, mean) > 0, mean, smooth)

    def column(j: int, count: int) -> Tensor:
        pairs = [probe(k, torch.eye(channels)[j].to(like)) for k in range(count)]
        return averaged([z[:, j : j + 1] * Nz for z, Nz in pairs])

    if channels > 2 and _mixes(column(0, 1)):
        blocks = torch.stack([column(j, 2) for j in range(channels)], 2)
        return (blocks + blocks.transpose(1, 2)) / 2
    pairs = [probe(k, torch.ones(channels).to(like)) for k in range(probes)]
    return averaged([z * Nz for z, Nz in pairs]).clamp_min(0.0)


def _mixes(column: Tensor) -> bool:
    """Whether what channel 0 sends to the others (B, C, H, W) is over 5 % of what it keeps."""
    share = column.mean((-2, -1)).abs()
    return bool((share[:, 1:].amax(1) > 0.05 * share[:, 0]).any())


def whitening(c: Tensor, d: Tensor) -> Callable[[Tensor], Tensor]:
    """z -> (I + c^1/2 d c^1/2)^-1/2 z; c, z (B, C, H, W), d alike or blocks (B, C, C, H, W)."""
    if d.ndim == c.ndim:
        k = (1 + c * d).rsqrt()
        return lambda z: k * z
    # Eigenvalues of a block differ by up to 1e6; not every device has double precision.
    root = c.cpu().double().sqrt()
    M = root[:, :, None] * d.cpu().double() * root[:, None]
    values, vectors = torch.linalg.eigh(M.permute(0, 3, 4, 1, 2))
    # Blocks averaged from probes need not be quite positive semidefinite.
    K = (vectors * (1 + values.clamp_min(0.0)).rsqrt()[..., None, :]) @ vectors.mT
    K = K.to(c)
    return lambda z: torch.einsum("bhwij,bjhw->bihw", K, z)


COVARIANCES = {
    "jacobian": JacobianMatching,
    "spectrum": SpectrumMatching,
    "isotropic": IsotropicMatching,
}
