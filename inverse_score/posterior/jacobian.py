"""Prototype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from operators.linalg import inner, per_item

from ..prior import Prior
from ..randomness import Noise
from ..sde import Time
from .conditional import ConditionalPrior, denoise_with_vjp
from .covariance import ratio_of, spectrum_of
from .measurement import Measurement
from .moments import IsotropicError, IsotropicMatching, SpectrumMatching
from .perturbation import gaussian_rest

Map = Callable[[Tensor], Tensor]
STATS = {"its": [], "neg": [], "rms": [], "asym": []}
FLOOR = 0.0
FULL = False
SYM = False
REST = True


class JacobianMatching(ConditionalPrior):
    walk: ClassVar[dict[str, Any]] = {"sampler": "dpm++2m"}

    def __init__(self, prior: Prior, data: Measurement, *, tol: float = 3e-3, max_iter: int = 50):
        super().__init__(prior, data)
        self.tol, self.max_iter = tol, max_iter
        spectrum, shape = spectrum_of(prior), data.operator.in_shape
        fits = spectrum is not None and len(shape) == 3 and shape[0] == len(spectrum.directions)
        self.base = SpectrumMatching(prior, data, tol=min(tol, 3e-3)) if fits else IsotropicMatching(prior, data)
        if fits: self.base.checked = True
        self.variance = self.base.variance if fits else None

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        data = self.measurement_for(x)
        alpha, sigma, ratio = ratio_of(self, t, x)
        x0_hat, vjp = denoise_with_vjp(self.inner, x, t)
        residual = data.residual(x0_hat)
        data, solve = self.base.about(x0_hat, residual, ratio)
        scale = 1.0 if self.variance is None else (1 + torch.as_tensor(ratio).to(self.variance) ** 2 / self.variance).sqrt()
        def product(v):
            return sigma**2 / alpha * vjp(v)
        return x0_hat + step(data, product, solve, data.weights.sqrt() * residual, self.tol * scale, self.max_iter)

    def rest(self, x: Tensor, t: Time, noise: Noise) -> Tensor:
        variance = IsotropicError(self.inner, self.data)(self.sde.ratio(t))
        return gaussian_rest(self.measurement_for(x), x, variance, noise)


def comb(V, a):
    return sum(per_item(a[:, i], v) * v for i, v in enumerate(V))


def step(data, product, solve, r, rms, max_iter):
    V, Y, KV = [], [], []
    delta, rho = torch.zeros_like(data.white_adjoint(r)), r
    T = r.new_zeros(len(r), 0, 0, dtype=r.real.dtype)
    active = torch.ones(len(r), dtype=torch.bool)
    a_full = None
    neg = 0
    for k in range(max_iter + 1):
        perp = rho
        if not FULL:
            for v in V:
                perp = perp - per_item(inner(v, perp), v) * v
        b = data.white_adjoint(perp)
        e = solve(b)
        size = (inner(b, e).clamp_min(0) / b[0].numel()).sqrt()
        active = active & (size > rms)
        if k == max_iter or not bool(active.any()):
            break
        p = perp - data.white(e)
        for _ in range(2):
            for v in V:
                p = p - per_item(inner(v, p), v) * v
        norm = inner(p, p).sqrt()
        p = p * per_item(torch.where(active, 1 / norm.clamp_min(1e-30), 0), p)
        y = product(data.white_adjoint(p))
        V.append(p); Y.append(y); KV.append(data.white(y))
        H = torch.stack([torch.stack([inner(v, kv) for kv in KV], 1) for v in V], 1)
        T = (H + H.mT) / 2
        STATS["asym"].append(float(((H - H.mT).flatten(1).norm(dim=1) / (H + H.mT).flatten(1).norm(dim=1)).mean()))
        theta, Q = torch.linalg.eigh(T.double())
        keep = theta > FLOOR
        f = torch.where(keep, 1 / (1 + theta.clamp_min(0)), 0.0)
        neg = (theta < -1e-9).sum(1).double().mean()
        b0 = torch.stack([inner(v, r) for v in V], 1).double()
        a = (Q @ (f[..., None] * (Q.mT @ b0[..., None])))[..., 0].to(r.real.dtype)
        if a_full is None: a_full = a
        else:
            old = torch.cat([a_full, torch.zeros_like(a[:, :1])], 1)
            a = torch.where(active[:, None], a, old)
        a_full = a
        delta = comb(Y, a)
        rho = r - comb(V, a) - comb(KV, a)
    STATS["its"].append(len(V)); STATS["neg"].append(float(neg)); STATS["rms"].append(float((size/ rms).max()))
    if REST:
        delta = delta + solve(data.white_adjoint(rho))
    return delta


COVARIANCES = {
    "jacobian": JacobianMatching,
    "spectrum": SpectrumMatching,
    "isotropic": IsotropicMatching,
}
