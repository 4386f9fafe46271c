"""DDNM: the measured part of x0_hat replaced by what the data say of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from operators.linalg import per_item

from ...prior import Prior
from ...randomness import PREDICTOR, Noise
from ...sampling.driver import Step
from ..consistency import Consistent, descend, renoise
from ..measurement import LinearMeasurement
from ..method import Course, Method, Walk, check_share
from ..moments import IsotropicError


@dataclass(frozen=True)
class DDNMOptions:
    """eta a number: the paper's L and step; None: `NullSpaceStep`'s L, noise tied to the step."""

    eta: float | None = None

    def __post_init__(self) -> None:
        check_share("eta", self.eta)


class NullSpaceStep(Consistent):
    """DDNM: x0 = x0_hat + A^+ L (y - A x0_hat)  (Wang, Yu & Zhang 2023, eq. 13 and 17).

    L = v s^2 / (v s^2 + noise^2) for a singular value s (default), v = v_t the prior's mean
    variance of x_0 given x_t; with eta a number min(1, r s / noise), DDNM+, with the singular
    values where the operator has them (svd or a diagonal A A^T), so that data noise and fresh noise
    add up to sigma_s; else one L for all and a pseudo-inverse regularized at 1e-3 of |A|^2. Exact
    data: L = 1.
    """

    def __init__(self, prior: Prior, data: LinearMeasurement, options: DDNMOptions):
        super().__init__(prior, data)
        exactly = data.exact or options.eta is not None
        self.error = None if exactly else IsotropicError(prior, data)

    def correct(self, data: LinearMeasurement, x0_hat: Tensor, r: Any) -> Tensor:
        if self.error is not None:
            # A^+ v s^2 / (v s^2 + noise^2) for all s at once.
            return x0_hat + data.solve(data.gradient(x0_hat), 1 / self.error(r))
        e = data.residual(x0_hat)
        gram, svd = _gram(data, e), data.operator.forms.svd
        if gram is not None:
            trust = _trust(r, gram.sqrt(), data.noise_std)
            return x0_hat + data.operator.T(_inverse(gram) * trust * e)
        if svd is not None and data.shared:
            s = svd.s.to(x0_hat)
            trust = _trust(_items(r, s), s, _items(data.noise_std.flatten(), s))
            return x0_hat + svd.V(_inverse(s) * trust * svd.Ut(e))
        trust = torch.as_tensor(r).to(data.gain) * data.gain.sqrt() if not data.exact else None
        pulled = data.solve(data.gradient(x0_hat), 1e-3 * data.gain, max_iter=30)
        return x0_hat + (
            pulled if trust is None else per_item(trust.clamp(max=1.0), pulled) * pulled
        )

    def fresh(self, data: LinearMeasurement, z: Tensor, r: Any) -> Tensor:
        """Noise whose variance, with what A^+ L n brings, is 1: z scaled along measured axes."""
        if data.exact:
            return z
        gram, svd = _gram(data, data.y), data.operator.forms.svd
        if gram is not None:
            used = _trust(r, gram.sqrt(), data.noise_std) * data.noise_std / r
            rest = (1 - used**2 * _inverse(gram)).clamp_min(0).sqrt()
            Az = data.operator(z)
            return z + data.operator.T(_inverse(gram) * (rest - 1) * Az)
        if svd is not None and data.shared:
            s = svd.s.to(z)
            std = _items(data.noise_std.flatten(), s)
            used = _trust(_items(r, s), s, std) * std * _inverse(s) / _items(r, s)
            return svd.V((1 - used**2).clamp_min(0).sqrt() * svd.Vt(z))
        return z


def null_space_step(cond: NullSpaceStep, noise: Noise, *, eta: float) -> Step:
    """DDNM's step: x_s = alpha_s x0 + sigma_s (sqrt(1 - eta^2) eps + eta z), eps the network's."""
    sde = cond.sde

    def step(k: int, x: Tensor, t: float, s: float) -> tuple[Tensor, Tensor]:
        data, r = cond.measurement_for(x), sde.ratio(s)
        x0_hat = cond.inner.denoise(x, t)
        x0 = cond.correct(data, x0_hat, r)
        eps = (x - sde.alpha(t) * x0_hat) / sde.sigma(t)
        unit = math.sqrt(1 - eta**2) * eps + eta * noise(x, k, PREDICTOR)
        return sde.alpha(s) * x0 + sde.sigma(s) * cond.fresh(data, unit, r), x0

    return step


def ddnm(
    prior: Prior, data: LinearMeasurement, noise: Noise, walk: Walk, options: DDNMOptions
) -> Tensor:
    """DDNM / DDNM+ (Wang, Yu & Zhang 2023), alg. 1 and 4 without time travel."""
    cond = NullSpaceStep(prior, data, options)
    if options.eta is None:
        step = renoise(cond, noise, zeta=None)
    else:
        step = null_space_step(cond, noise, eta=options.eta)
    return descend(cond, step, data, noise, walk)


def _gram(data: LinearMeasurement, like: Tensor) -> Tensor | None:
    gram = data.operator.forms.row_gram
    return None if gram is None else gram.to(device=like.device, dtype=like.real.dtype)


def _trust(r: Any, s: Tensor, noise_std: Tensor) -> Tensor:
    """min(1, r s / noise): how much of a coefficient's residual is taken over."""
    if isinstance(r, Tensor) and r.ndim == 1:
        r = r.reshape(-1, *[1] * (noise_std.ndim - 1)).to(s)
    wanted = r * s
    return torch.where(wanted < noise_std, wanted / noise_std.clamp_min(1e-30), 1.0)


def _inverse(values: Tensor) -> Tensor:
    kept = values > 1e-6 * values.amax()
    return torch.where(kept, 1 / torch.where(kept, values, 1.0), 0.0)


def _items(value: Any, like: Tensor) -> Any:
    """(B,) shaped to scale singular values (B or 1, *shape)."""
    if isinstance(value, Tensor) and value.ndim == 1:
        return value.to(like).reshape(-1, *[1] * max(like.ndim - 1, 1))
    return value


METHOD = Method(
    "ddnm",
    DDNMOptions,
    ddnm,
    Course(None, steps=100),
    conditional=NullSpaceStep,
    presets={"paper": {"eta": 0.85, "steps": 100, "kind": "uniform"}},
    calls=lambda options, steps: steps,
    needs_noise=False,
)
