"""Losses whose minimiser is the score, written for any Prior, and a classifier's on noisy data.

Every loss takes (prior, x0, noise) and gives one value an item, (B,), so that means over a batch,
over devices and per noise level are the caller's. x0 (B, *event) is in the prior's own units;
`noise` names the items, so a loss is a pure function of weights, data and seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from .prior import Prior, batch_time
from .randomness import OTHER, PREDICTOR, PROBE, Noise
from .sde import SDE, per_item

Times = Literal["uniform", "log-uniform", "log-normal"]
Weighting = Literal["sigma2", "g2", "karras"]


@dataclass(frozen=True)
class Levels:
    """How noise levels are drawn, as a law of t or of the noise-to-signal r = sigma / alpha.

    uniform: t ~ U(t_min, T). log-uniform: ln r uniform, which is p(t) proportional to
    g^2 / sigma^2 for every SDE, because d ln r^2 / dt = g^2 / sigma^2 (the importance sampling of
    Song et al. 2021, Maximum likelihood training, sec. 4.2, in closed form). log-normal:
    ln r ~ N(mean, std^2) (Karras et al. 2022, table 1), truncated to the prior's levels.
    """

    times: Times = "uniform"
    mean: float = -1.2
    std: float = 1.2

    def draw(self, prior: Prior, u: Tensor) -> Tensor:
        """t (B,) in float64 from u (B,), uniform on [0, 1)."""
        sde, u = prior.sde, u.double()
        if self.times == "uniform":
            return prior.t_min + u * (sde.T - prior.t_min)
        low, high = math.log(sde.ratio(prior.t_min)), math.log(sde.ratio(sde.T))
        if self.times == "log-uniform":
            log_ratio = low + u * (high - low)
        else:
            below, above = self._cdf(low), self._cdf(high)
            quantile = (below + u * (above - below)).clamp(1e-12, 1 - 1e-12)
            log_ratio = self.mean + self.std * torch.special.ndtri(quantile)
        return sde.time(log_ratio.exp()).clamp(prior.t_min, sde.T)

    def _cdf(self, value: float) -> float:
        return 0.5 * math.erfc((self.mean - value) / (self.std * math.sqrt(2)))

    def density(self, prior: Prior, t: Tensor) -> Tensor:
        """p(t) of the drawn times."""
        sde = prior.sde
        if self.times == "uniform":
            return torch.full_like(t, 1 / (sde.T - prior.t_min))
        low, high = math.log(sde.ratio(prior.t_min)), math.log(sde.ratio(sde.T))
        # d ln r / dt
        slope = 0.5 * (sde.g(t) / sde.sigma(t)) ** 2
        if self.times == "log-uniform":
            return slope / (high - low)
        z = (sde.ratio(t).log() - self.mean) / self.std
        normal = torch.exp(-0.5 * z**2) / (self.std * math.sqrt(2 * math.pi))
        return slope * normal / (self._cdf(high) - self._cdf(low))


def noise_error(prior: Prior, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """|eps_hat - eps|^2 / d (B,) at x_t = alpha x_0 + sigma eps, eps_hat = -sigma score(x_t, t)."""
    return _error(prior, x0, eps, t, prior.sde.alpha(t), prior.sde.sigma(t))


def _error(
    prior: Prior, x0: Tensor, eps: Tensor, t: Tensor, alpha: Tensor, sigma: Tensor
) -> Tensor:
    """noise_error for a level's own alpha and sigma; no form subtracts nearly equal numbers."""
    alpha, sigma = per_item(alpha, x0), per_item(sigma, x0)
    xt = alpha * x0 + sigma * eps
    raw = prior.network(xt, batch_time(t, xt))
    if prior.output == "eps":
        return _mean(raw - eps)
    if prior.output == "score":
        return _mean(sigma * raw + eps)
    if prior.output == "x0":
        return _mean((raw - x0) * alpha / sigma)
    # v = alpha eps - sigma x0, so eps_hat = (sigma x_t + alpha v_hat) / (alpha^2 + sigma^2).
    return _mean((raw - (alpha * eps - sigma * x0)) * alpha / (alpha**2 + sigma**2))


def _mean(difference: Tensor) -> Tensor:
    return difference.float().square().flatten(1).mean(1)


@dataclass(frozen=True)
class DenoisingLoss:
    """lambda(t) |score(x_t, t) - grad log p(x_t | x_0)|^2, t from `levels` (Vincent 2011).

    weighting of the score's error: "sigma2" (Song et al. 2021, eq. 7: every level's noise is
    predicted alike), "g2" (likelihood weighting, Song et al. 2021b: half the expected value bounds
    -log p from above), "karras" ((r^2 + s^2) / (r s)^2 on the error of x_0 at noise-to-signal r
    for data of std s = sigma_data). `levels` changes the variance under "g2", where the density is
    divided out, and is part of the objective otherwise.
    """

    levels: Levels = Levels()
    weighting: Weighting = "sigma2"
    sigma_data: float = 1.0

    def __call__(self, prior: Prior, x0: Tensor, noise: Noise) -> Tensor:
        t = draw_times(prior, self.levels, x0, noise)
        error = noise_error(prior, x0, noise(x0, 0, OTHER), t)
        return self.weight(prior, t).to(error) * error

    def weight(self, prior: Prior, t: Tensor) -> Tensor:
        """What multiplies |eps_hat - eps|^2 / d at t."""
        if self.weighting == "sigma2":
            return torch.ones_like(t)
        if self.weighting == "g2":
            sde = prior.sde
            return (sde.g(t) / sde.sigma(t)) ** 2 / self.levels.density(prior, t)
        r = prior.sde.ratio(t)
        return (r**2 + self.sigma_data**2) / self.sigma_data**2


def draw_times(prior: Prior, levels: Levels, x0: Tensor, noise: Noise) -> Tensor:
    """One t an item, float64 (B,)."""
    u = noise.uniform(torch.empty(len(x0), dtype=torch.float32), 0, PREDICTOR)
    return levels.draw(prior, u).to(x0.device if x0.device.type != "mps" else "cpu")


@dataclass(frozen=True)
class DiscreteLoss:
    """The losses of SMLD and DDPM: |eps_hat - eps|^2 / d at one of `count` levels, all alike.

    smld: sigma_i geometric (Song & Ermon 2019), the times i T / (count - 1) of a VESDE.
    ddpm: alpha_i^2 = prod_{j <= i} (1 - beta_j), beta_j = beta(j T / (count - 1)) T / count (Ho et
    al. 2020 with VPSDE: 1e-4 to 0.02 at 1000), the times (i + 1) T / count.
    """

    kind: Literal["smld", "ddpm"]
    count: int = 1000

    def __post_init__(self) -> None:
        if self.count < 2:
            raise ValueError(f"a discrete loss needs at least 2 levels; got {self.count}")

    def table(self, sde: SDE) -> tuple[Tensor, Tensor, Tensor]:
        """(t_i, alpha_i, sigma_i), each (count,) in float64."""
        index = torch.arange(self.count, dtype=torch.float64)
        if self.kind == "smld":
            t = index / (self.count - 1) * sde.T
            return t, sde.alpha(t), sde.sigma(t)
        beta_at = getattr(sde, "beta", None)
        if beta_at is None:
            raise ValueError(f"the DDPM loss needs an SDE with beta(t); got {sde}")
        beta = beta_at(index / (self.count - 1) * sde.T) * sde.T / self.count
        alpha2 = torch.cumprod(1 - beta, 0)
        return (index + 1) / self.count * sde.T, alpha2.sqrt(), (1 - alpha2).sqrt()

    def __call__(self, prior: Prior, x0: Tensor, noise: Noise) -> Tensor:
        u = noise.uniform(torch.empty(len(x0), dtype=torch.float32), 0, PREDICTOR)
        index = (u * self.count).long().clamp(max=self.count - 1)
        t, alpha, sigma = (value[index] for value in self.table(prior.sde))
        return _error(prior, x0, noise(x0, 0, OTHER), t.clamp(min=prior.t_min), alpha, sigma)


@dataclass(frozen=True)
class SlicedLoss:
    """sigma^2 (v^T grad(v^T s) + |s|^2 / 2) / d, variance-reduced sliced score matching.

    Song, Garg, Shi & Ermon 2019, eq. 8: s = score(x_t, t), v Rademacher, of which `probes` are
    averaged; x_t is data with the noise of one level, so the minimiser is that of denoising score
    matching, and no noise target is used. Costs a second derivative of the network.
    """

    levels: Levels = Levels()
    probes: int = 1

    def __call__(self, prior: Prior, x0: Tensor, noise: Noise) -> Tensor:
        t = draw_times(prior, self.levels, x0, noise)
        alpha, sigma = per_item(prior.sde.alpha(t), x0), per_item(prior.sde.sigma(t), x0)
        xt = (alpha * x0 + sigma * noise(x0, 0, OTHER)).requires_grad_()
        score = prior.score(xt, batch_time(t, xt))
        trace = torch.zeros(len(x0), device=x0.device)
        for probe in range(self.probes):
            v = noise.rademacher(x0, probe, PROBE)
            # Items do not meet in the network, so the gradient of the sum is each item's own.
            (jacobian,) = torch.autograd.grad((v * score).sum(), xt, create_graph=True)
            trace = trace + (v * jacobian).flatten(1).mean(1) / self.probes
        variance = sigma.flatten().to(trace) ** 2 if isinstance(sigma, Tensor) else sigma**2
        return variance * (trace + 0.5 * _mean(score))


@dataclass(frozen=True)
class ClassifierLoss:
    """-log p(label | x_t), x_t = alpha x_0 + sigma eps at t from `levels`.

    prior.network is the classifier, (x_t, t) -> logits (B, classes), and prior's SDE, range and
    t_min are those of the prior that it is to guide (Song et al. 2021, app. I.1; Dhariwal & Nichol
    2021, sec. 4).
    """

    levels: Levels = Levels()

    def __call__(self, prior: Prior, x0: Tensor, labels: Tensor, noise: Noise) -> Tensor:
        t = draw_times(prior, self.levels, x0, noise)
        return nn.functional.cross_entropy(
            self.logits(prior, x0, t, noise(x0, 0, OTHER)), labels, reduction="none"
        )

    @staticmethod
    def logits(prior: Prior, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """The classifier's answer for x_t, in float32."""
        xt = per_item(prior.sde.alpha(t), x0) * x0 + per_item(prior.sde.sigma(t), x0) * eps
        return prior.network(xt, batch_time(t, xt)).float()
