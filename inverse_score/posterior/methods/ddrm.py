"""DDRM: diffusion restoration coefficient by coefficient of the operator's singular vectors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from operators.spectral import inverse

from ...prior import Prior
from ...randomness import PREDICTOR, START, Noise
from ...sampling.driver import integrate
from ..measurement import LinearMeasurement
from ..method import Course, Method, Walk, check_share, start_of
from ..moments import IsotropicError


@dataclass(frozen=True)
class DDRMOptions:
    """As of `ddrm`."""

    eta: float = 0.85
    eta_b: float | None = None

    def __post_init__(self) -> None:
        check_share("eta", self.eta)
        check_share("eta_b", self.eta_b)


def ddrm(
    prior: Prior, data: LinearMeasurement, noise: Noise, walk: Walk, options: DDRMOptions
) -> Tensor:
    """DDRM (Kawar, Elad, Ermon & Song 2022), A = U diag(s) V^T, in xbar = V^T x / alpha.

    With y_i = (U^T y)_i / s_i, n_i = noise / s_i, m = V^T x0_hat, r = sigma / alpha, r_t -> r:
      s_i = 0:   m + sqrt(1 - eta^2) r (xbar_t - m) / r_t + eta r z
      r < n_i:   m + sqrt(1 - eta^2) r (y_i - m) / n_i + eta r z
      r >= n_i:  (1 - eta_b) m + eta_b y_i + sqrt(r^2 - eta_b^2 n_i^2) z
    so that xbar_r ~ N(xbar_0, r^2) whatever r when m = xbar_0. eta_b None (default): the Gaussian
    weight v_r / (v_r + n_i^2), v_r the mean variance of x_0 given x_r; a number (preset "paper":
    1): itself. Approximates x_0 given x_t and y by a point. One call a step; ValueError for an
    operator without singular values or noise that differs within an item.
    """
    step = _Step(prior, data, noise, options)
    return integrate(step, prior, step.begin(walk.times[0]), walk.times, callback=walk.callback)


class _Step:
    """The three cases of DDRM, for all coefficients at once."""

    def __init__(self, prior: Prior, data: LinearMeasurement, noise: Noise, options: DDRMOptions):
        svd = data.operator.forms.svd
        if svd is None or not data.shared:
            what = "has no singular values (svd)" if svd is None else "is weighted within an item"
            raise ValueError(
                f'{type(data.operator).__name__} {what}, which "ddrm" needs; "moment-matching" '
                "takes any operator and noise"
            )
        self.prior, self.noise, self.svd = prior, noise, svd
        self.data, self.eta, self.eta_b = data, options.eta, options.eta_b
        self.error = None if self.eta_b is not None else IsotropicError(prior, data)
        projected = svd.Ut(data.y)
        s = svd.s.to(projected)
        self.known = (s > 0).expand_as(projected)
        self.target = inverse(s) * projected
        std = data.noise_std.reshape(-1, *[1] * (projected.ndim - 1))
        self.level = (inverse(s) * std).expand_as(projected)

    def begin(self, t: float) -> Tensor:
        """x_T: y_i with the noise that is missing to r_T, the SDE's start where s_i = 0."""
        r, alpha = self.prior.sde.ratio(t), self.prior.sde.alpha(t)
        xT = start_of(self.prior, self.data, self.noise)
        z = self.svd.Vt(self.noise(xT, 1, START))
        rest = (r**2 - self.level**2).clamp_min(0).sqrt()
        told = self.known & (self.level < r)
        return self.svd.V(torch.where(told, alpha * (self.target + rest * z), self.svd.Vt(xT)))

    def __call__(self, k: int, x: Tensor, t: float, s: float) -> tuple[Tensor, Tensor]:
        sde = self.prior.sde
        r, r_t = sde.ratio(s), sde.ratio(t)
        x0_hat = self.prior.denoise(x, t)
        m, xbar = self.svd.Vt(x0_hat), self.svd.Vt(x) / sde.alpha(t)
        z = self.svd.Vt(self.noise(x, k, PREDICTOR))
        kept = math.sqrt(1 - self.eta**2)
        free = m + r * (kept * (xbar - m) / r_t + self.eta * z)
        e, n = self.target - m, self.level
        below = m + r * (kept * e / n.clamp_min(1e-30) + self.eta * z)
        w: Any = self.eta_b if self.error is None else _weight(self.error(r), n)
        above = m + w * e + (r**2 - (w * n) ** 2).clamp_min(0).sqrt() * z
        known = above if self.error is not None else torch.where(r < n, below, above)
        return sde.alpha(s) * self.svd.V(torch.where(self.known, known, free)), x0_hat


def _weight(v: float, n: Tensor) -> Tensor:
    """v / (v + n^2), for which w n <= r / 2 since v <= r^2: one rule above and below n."""
    return v / (v + n**2)


METHOD = Method(
    "ddrm",
    DDRMOptions,
    ddrm,
    Course(None, steps=100),
    presets={"paper": {"eta": 0.85, "eta_b": 1.0, "steps": 20, "kind": "uniform"}},
    calls=lambda options, steps: steps,
    needs_noise=False,
)
