"""Denoisers made consistent with the data, and hooks that replace the measured part of a state.

r = sigma / alpha, N = A^T W A, W = noise^-2. The proximal methods share one step,
x_s = alpha_s x0 + sigma_s (sqrt(1 - zeta) eps + sqrt(zeta) z), and differ in x0 and eps.

zeta None, the default of all three, ties the share of fresh noise to the step (`tied_share`), and
eps to the corrected x0, so that eps carries the posterior's spread from step to step. The papers'
constants renew most of it at each step, about an x0 that is one point: the spread is lost, and
more of it the more steps there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from operators.linalg import conjugate_gradient, per_item

from ..prior import Prior
from ..randomness import OTHER, PREDICTOR, Noise
from ..sampling.driver import Hook, Step
from ..sde import Time
from .along_z import AlongZ
from .conditional import ConditionalPrior
from .measurement import Measurement
from .moments import IsotropicError


class Consistent(ConditionalPrior):
    """A denoiser followed by a step towards the data: `correct(x0_hat, r)`, r = sigma / alpha."""

    # Which x0 gives eps = (x - alpha x0) / sigma: the network's own or the corrected one.
    eps_of_network = False

    def correct(self, data: Measurement, x0_hat: Tensor, r: Any) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no correction")

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        return self.correct(self.measurement_for(x), self.inner.denoise(x, t), self.sde.ratio(t))


class ProximalStep(Consistent):
    """DiffPIR: x0 = argmin |y - A x|_W^2 + |x - x0_hat|^2 / v  (Zhu et al. 2023, eq. 12).

    lam None (default): v = v_t, the mean variance of x_0 given x_t under the prior; a number
    (preset "paper": 7): v = r^2 / lam.
    """

    def __init__(self, prior: Prior, data: Measurement, *, lam: float | None = None):
        super().__init__(prior, data)
        self.lam = _positive("lam", lam)
        self.error = IsotropicError(prior, data) if lam is None else None

    def correct(self, data: Measurement, x0_hat: Tensor, r: Any) -> Tensor:
        rho = 1 / self.error(r) if self.error is not None else self.lam / r**2
        return x0_hat + data.solve(data.gradient(x0_hat), rho)


class KrylovStep(Consistent):
    """DDS: x0 = a few CG iterations from x0_hat on (I + gamma N) x = x0_hat + gamma A^T W y.

    Chung, Lee & Ye 2024, alg. 1. gamma None (default): v_t of the prior; a number (preset
    "paper": 1, in units where |A| = 1 and W = 1): gamma itself. Exact data: CG on N x = A^T y.
    iterations: 15 by default, 5 in the paper, whose operators are nearly projections: CT of 30
    views stays 6 noise standard deviations off its data with 5, 3 with 15 or 40.
    between_slices, penalty, splits: hold the slices of a volume together (the paper's 3-D form),
    as `AlongZ` says.
    """

    eps_of_network = True

    def __init__(
        self,
        prior: Prior,
        data: Measurement,
        *,
        gamma: float | None = None,
        iterations: int = 15,
        between_slices: float | None = None,
        penalty: str = "tv",
        splits: int = 3,
    ):
        super().__init__(prior, data)
        self.coupling = None
        if between_slices is not None:
            self.coupling = AlongZ(between_slices, penalty, splits)
            if data.exact:
                raise ValueError(
                    "between_slices is weighed against the data's noise: noise_std must be positive"
                )
        self.gamma, self.iterations = _positive("gamma", gamma), int(iterations)
        self.error = None
        if gamma is None and not data.exact:
            self.error = IsotropicError(prior, data)

    def correct(self, data: Measurement, x0_hat: Tensor, r: Any) -> Tensor:
        b = data.gradient(x0_hat)
        if self.error is not None:
            g = torch.as_tensor(self.error(r))
        elif data.exact:
            g = torch.tensor(math.inf)
        else:
            g = self.gamma / data.gain
        rho = per_item(1 / g.to(b), b)

        def matrix(v: Tensor) -> Tensor:
            return data.normal(v) + rho * v

        if self.coupling is not None:
            return self.coupling.step(matrix, b, x0_hat, self.iterations)
        step, _ = conjugate_gradient(matrix, b, max_iter=self.iterations)
        return x0_hat + step


class NullSpaceStep(Consistent):
    """DDNM: x0 = x0_hat + A^+ L (y - A x0_hat)  (Wang, Yu & Zhang 2023, eq. 13 and 17).

    L = v s^2 / (v s^2 + noise^2) for a singular value s (default), v = v_t the prior's mean
    variance of x_0 given x_t; paper=True: min(1, r s / noise), DDNM+, with the singular values
    where the operator has them (svd or a diagonal A A^T), so that data noise and fresh noise add
    up to sigma_s; else one L for all and a pseudo-inverse regularized at 1e-3 of |A|^2. Exact
    data: L = 1.
    """

    def __init__(self, prior: Prior, data: Measurement, *, paper: bool = False):
        super().__init__(prior, data)
        self.paper = paper
        self.error = None if paper or data.exact else IsotropicError(prior, data)

    def correct(self, data: Measurement, x0_hat: Tensor, r: Any) -> Tensor:
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

    def fresh(self, data: Measurement, z: Tensor, r: Any) -> Tensor:
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


def renoise(cond: Consistent, noise: Noise, *, zeta: float | None) -> Step:
    """x_s = alpha_s x0 + sigma_s (sqrt(1 - zeta) eps + sqrt(zeta) z): DiffPIR's and DDS's step.

    zeta None: `tied_share`, and eps of the corrected x0; a number: the paper's step.
    """
    _check_share("zeta", zeta)
    sde = cond.sde

    def step(k, x, t, s):
        x0_hat = cond.inner.denoise(x, t)
        x0 = cond.correct(cond.measurement_for(x), x0_hat, sde.ratio(t))
        known = x0_hat if cond.eps_of_network and zeta is not None else x0
        eps = (x - sde.alpha(t) * known) / sde.sigma(t)
        share = tied_share(sde.ratio(t), sde.ratio(s)) if zeta is None else zeta
        fresh = math.sqrt(1 - share) * eps + math.sqrt(share) * noise(x, k, PREDICTOR)
        return sde.alpha(s) * x0 + sde.sigma(s) * fresh, x0

    return step


def tied_share(r: float, r_s: float) -> float:
    """1 - (r_s / r)^4, the share of fresh noise in a step from noise-to-signal r to r_s.

    1 - (r_s / r)^2 is that of the reverse SDE, whose law the step then follows as steps shrink.
    Twice its noise, the other half as of a Langevin corrector, forgets more of what an isotropic
    variance got wrong before: of the powers 0, 1, 2, 4, 6, 8, 16 this one leaves the trace of the
    posterior's covariance nearest to right on inpainting and blur.
    """
    return 1 - (r_s / r) ** 4


def null_space_step(cond: NullSpaceStep, noise: Noise, *, eta: float) -> Step:
    """DDNM's step: x_s = alpha_s x0 + sigma_s (sqrt(1 - eta^2) eps + eta z), eps the network's."""
    _check_share("eta", eta)
    sde = cond.sde

    def step(k, x, t, s):
        data, r = cond.measurement_for(x), sde.ratio(s)
        x0_hat = cond.inner.denoise(x, t)
        x0 = cond.correct(data, x0_hat, r)
        eps = (x - sde.alpha(t) * x0_hat) / sde.sigma(t)
        unit = math.sqrt(1 - eta**2) * eps + eta * noise(x, k, PREDICTOR)
        return sde.alpha(s) * x0 + sde.sigma(s) * cond.fresh(data, unit, r), x0

    return step


def _check_share(name: str, value: float | None) -> None:
    if value is not None and not 0 <= value <= 1:
        raise ValueError(f"{name} must lie in [0, 1]; got {value}")


def replacement_hook(
    prior: Prior, data: Measurement, noise: Noise, lam: Callable[[float], Any]
) -> Hook:
    """x <- x + lam T^-1 Lambda (P^-1(y_t) - T x), y_t = alpha y + sigma A z, z drawn afresh.

    Song et al. 2022, eq. 9; lam = 1 is the replacement of Song et al. 2021 (inpainting,
    colorization). T and Lambda are the operator's `transform`; without one, A^+ does their work.
    """
    transform = data.operator.forms.transform
    draws = iter(range(1 << 40))

    def hook(x: Tensor, t: float) -> Tensor:
        z = noise(x, next(draws), OTHER)
        known = prior.sde.alpha(t) * data.y + prior.sde.sigma(t) * data.operator(z)
        weight = lam(prior.sde.ratio(t))
        if transform is not None and data.exact | data.shared:
            change = transform.embed(known) - transform.mask * transform.T(x)
            step = transform.T_inv(change)
        else:
            step = data.pinv(known - data.operator(x))
        step = step.real if step.is_complex() and not x.is_complex() else step
        return x + per_item(weight, x) * step if isinstance(weight, Tensor) else x + weight * step

    return hook


def _gram(data: Measurement, like: Tensor) -> Tensor | None:
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


def _positive(name: str, value: float | None) -> float | None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive and finite; got {value}")
    return value
