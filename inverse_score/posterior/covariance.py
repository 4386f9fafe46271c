"""Cov[x_0 | x_t] without differentiation: a prior's held-out denoising-error spectrum.

`held_out.error_spectrum(prior, images)` measures, for held-out images and noise levels
r = sigma / alpha, the mean square of each DCT coefficient of x_0 - E[x_0 | x_t]. For a stationary
prior that is the conditional covariance itself, diagonal in the DCT up to what the image's border
does. It is kept in the prior's card under "error_spectrum" as one JSON object, in the prior's
units u:

    sigma       L increasing levels r = sigma(t) / alpha(t)
    basis       "dct": orthonormal DCT-II over the last two axes of (C, H, W)
    channels    C x C orthonormal; row i weighs the channels of the i-th direction
    bins        "radial": frequency[j] in cycles per pixel, sqrt(fy^2 + fx^2) with f = k / (2 N),
                frequency[0] = 0; such a spectrum serves any image size;
                "full": shape [H, W], one value a coefficient, row by row
    values      L x C x bins, mean squared coefficient of the error
    error_mean, error_std   L: mean and standard deviation over images of the error's mean square
    images      how many images were measured
    local       where in an image the error is large (posterior.local), for images over 16 pixels;
                values then are those of the error divided by this local scale s
    unseen      factor of the variance on people whom the weights have not seen, as those measured
                are (1 if absent); eta: the walk's that goes with it (posterior.auto)

Between levels log(value) is linear in log(r); below the first level value ~ r^2, above the last
it stays.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor

from operators.linalg import per_item

from ..prior import Prior
from ..randomness import Noise
from .local import LocalScale, between

KEY = "error_spectrum"


class ErrorSpectrum:
    """Cov[x_0 | x_t] = S R^T D^T diag(c) D R S, D the DCT, R the channel directions of the card.

    S = diag(s) is where in an image the error is large (posterior.local), I without "local".
    """

    def __init__(self, card: dict[str, Any]):
        need = {"sigma", "basis", "channels", "bins", "values"}
        missing = need - set(card)
        if missing or card["basis"] != "dct" or card["bins"] not in ("full", "radial"):
            raise ValueError(
                f'an error spectrum has {", ".join(sorted(need))}, basis "dct" and bins "full" or '
                f'"radial"; got basis {card.get("basis")!r}, bins {card.get("bins")!r}, '
                f"missing {sorted(missing)}"
            )
        self.card = card
        sigma = torch.tensor(card["sigma"], dtype=torch.float64)
        values = torch.tensor(card["values"], dtype=torch.float64)
        if not bool((sigma > 0).all() and sigma.isfinite().all() and (sigma.diff() > 0).all()):
            raise ValueError(f"sigma must be positive and increasing; got {card['sigma']}")
        if not bool((values >= 0).all() and values.isfinite().all()):
            raise ValueError("values of an error spectrum must be finite and not negative")
        self.log_sigma, self.log_values = sigma.log(), values.clamp_min(1e-30).log()
        self.directions = torch.tensor(card["channels"], dtype=torch.float64)
        if self.log_values.shape[:2] != (len(self.log_sigma), len(self.directions)):
            raise ValueError(
                f"values must be levels x channels x bins = {len(self.log_sigma)} x "
                f"{len(self.directions)} x ...; got {tuple(self.log_values.shape)}"
            )
        self.unseen = float(card.get("unseen", 1.0))
        if not (math.isfinite(self.unseen) and self.unseen > 0):
            raise ValueError(f"unseen of an error spectrum must be positive; got {self.unseen}")
        local = card.get("local")
        self.local = None if local is None else LocalScale(local, self.log_sigma)

    def scale(self, x0_hat: Tensor, ratio: float | Tensor) -> Tensor:
        """s about x0_hat (B, C, H, W): (B, 1, H, W), mean square about 1; 1 without "local"."""
        if self.local is None:
            return torch.ones(1, 1, 1, 1, dtype=x0_hat.dtype, device=x0_hat.device)
        return self.local(x0_hat, ratio)

    def at(self, ratio: float | Tensor, like: Tensor) -> Tensor:
        """c at noise-to-signal `ratio` (float or (B,)): (1 or B, C, H, W), like's dtype, device."""
        if like.ndim != 4 or like.shape[1] != len(self.directions):
            raise ValueError(
                f"the error spectrum is of images with {len(self.directions)} channels; got "
                f"{tuple(like.shape)}"
            )
        # Far below the first level the error is the noise itself, shaped as at that level.
        ratio = torch.as_tensor(ratio, dtype=torch.float64).cpu().reshape(-1)
        below = (ratio.log() - self.log_sigma[0]).clamp(max=0.0)[:, None, None]
        log_c = between(self.log_sigma, self.log_values, ratio) + 2 * below
        log_c = log_c.to(like.dtype).to(like.device)
        return self._on_grid(log_c, (like.shape[-2], like.shape[-1])).exp()

    def of_strangers(self, ratio: float | Tensor, like: Tensor) -> Tensor:
        """c at noise-to-signal `ratio` of people unlike those measured: `unseen` times `at`."""
        return self.unseen * self.at(ratio, like)

    def describes(self, shape: tuple[int, ...]) -> bool:
        """Whether events of this shape are its images, (C, H, W) with its channels."""
        return len(shape) == 3 and shape[0] == len(self.directions)

    def _on_grid(self, log_c: Tensor, shape: tuple[int, int]) -> Tensor:
        if self.card["bins"] == "full":
            if list(shape) == list(self.card["shape"]):
                return log_c.reshape(*log_c.shape[:2], *shape)
            grid = log_c.reshape(*log_c.shape[:2], *self.card["shape"])
            return torch.nn.functional.interpolate(grid, shape, mode="bilinear")
        index, part = (v.to(log_c.device) for v in _place(tuple(self.card["frequency"]), shape))
        return torch.lerp(log_c[..., index], log_c[..., index + 1], part.to(log_c))

    def mean_square(self, ratio: float | Tensor, like: Tensor) -> Tensor:
        """The error's mean variance per element, (1 or B,)."""
        return self.at(ratio, like).flatten(1).mean(1)

    def forward(self, x: Tensor) -> Tensor:
        """D R x: (B, C, H, W) to coefficients in which the covariance is diagonal."""
        return dct(self._rotate(x, self.directions))

    def inverse(self, z: Tensor) -> Tensor:
        """R^T D^T z."""
        return self._rotate(idct(z), self.directions.T)

    def _rotate(self, x: Tensor, R: Tensor) -> Tensor:
        if len(R) == 1 or torch.equal(R, torch.eye(len(R), dtype=R.dtype)):
            return x
        return torch.einsum("ij,bjhw->bihw", R.to(x.dtype).to(x.device), x)


def spectrum_of(prior: Prior) -> ErrorSpectrum | None:
    """The prior's stored error spectrum; None if its card has none."""
    card = prior.card.get(KEY)
    return None if card is None else ErrorSpectrum(card)


@torch.no_grad()
def pixel_variance(prior: Prior, event_shape: tuple[int, ...], dtype: Any = None) -> float:
    """The mean variance of an element of x_0 under the prior, in u.

    From the error spectrum's last level; without one by differences: with m = tr Cov[x_0 | x_t] /
    d = (sigma^2 / alpha) tr J / d, J the denoiser's Jacobian, z^T (D(h z) - D(-h z)) / (2 h)
    estimates tr J. At r = 4 a Gaussian has m = v r^2 / (v + r^2), solved for v. Two calls.
    """
    spectrum = spectrum_of(prior)
    dtype = dtype or torch.float32
    if spectrum is not None:
        like = torch.empty(1, *image_shape(prior, event_shape), dtype=dtype)
        return float(spectrum.mean_square(math.inf, like))
    r = min(4.0, prior.sde.ratio(prior.sde.T))
    t = prior.sde.time(r)
    alpha, sigma = prior.sde.alpha(t), prior.sde.sigma(t)
    probes = min(64, max(1, 65536 // math.prod(event_shape)))
    like = torch.empty(probes, *event_shape, dtype=dtype, device=prior.device)
    z = Noise(0, range(probes)).rademacher(like, 0)
    slope = (z * (prior.denoise(sigma * z, t) - prior.denoise(-sigma * z, t))).mean() / (2 * sigma)
    m = float(sigma**2 / alpha * slope)
    return m * r**2 / (r**2 - m) if 0 < m < r**2 else 1.0


def image_shape(prior: Prior, event_shape: tuple[int, ...]) -> tuple[int, ...]:
    """(C, H, W) of the images that the error spectrum describes: a volume's slices."""
    axis = getattr(prior, "axis", None)
    if len(event_shape) != 4 or axis is None:
        return event_shape
    return (*event_shape[: 1 + axis], *event_shape[2 + axis :])


def dct(x: Tensor) -> Tensor:
    """Orthonormal DCT-II over the last two axes."""
    return dct_matrix(x.shape[-2], x) @ x @ dct_matrix(x.shape[-1], x).T


def idct(z: Tensor) -> Tensor:
    """The inverse and transpose of `dct`."""
    return dct_matrix(z.shape[-2], z).T @ z @ dct_matrix(z.shape[-1], z)


def dct_matrix(size: int, like: Tensor) -> Tensor:
    """D[k, n] = sqrt(2 / N) cos(pi k (n + 1/2) / N), row 0 divided by sqrt(2)."""
    return _dct_matrix(size, like.dtype, like.device)


@functools.lru_cache(maxsize=32)
@torch.inference_mode(False)  # what is kept may be needed by autograd later
def _dct_matrix(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    k = torch.arange(size, dtype=torch.float64)
    D = math.sqrt(2 / size) * torch.cos(math.pi * k[:, None] * (k + 0.5) / size)
    D[0] /= math.sqrt(2)
    return D.to(dtype).to(device)


def radius(shape: tuple[int, int]) -> Tensor:
    """The frequency of each DCT coefficient in cycles per pixel, (H, W)."""
    fy, fx = (torch.arange(n, dtype=torch.float64) / (2 * n) for n in shape)
    return (fy[:, None] ** 2 + fx**2).sqrt()


@functools.lru_cache(maxsize=16)
def _place(frequency: tuple[float, ...], shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """For each coefficient the bin to its left and its share of the next, linear in log f."""
    f = torch.tensor(frequency, dtype=torch.float64)
    at = radius(shape)
    index = torch.searchsorted(f, at, right=True).clamp(1, len(f) - 1) - 1
    # Bin 0 is the constant alone, so nothing is interpolated towards it.
    index = torch.where((index == 0) & (at > 0), 1, index)
    left, right = f[index].clamp_min(1e-12).log(), f[index + 1].log()
    part = ((at.clamp_min(1e-12).log() - left) / (right - left)).clamp(0, 1)
    return index, torch.where(at == 0, 0.0, part)


def gaussian_error(variance: Any, ratio: Any) -> Any:
    """v r^2 / (v + r^2): the denoising error of N(0, v) at noise-to-signal r."""
    return variance * ratio**2 / (variance + ratio**2)


def ratio_of(prior: Prior, t: Any, x: Tensor) -> tuple[Any, Any, Any]:
    """alpha, sigma shaped to scale x, and sigma / alpha as a float or (B,)."""
    return per_item(prior.sde.alpha(t), x), per_item(prior.sde.sigma(t), x), prior.sde.ratio(t)
