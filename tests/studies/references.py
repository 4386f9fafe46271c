"""Other packages' samplers on the same closed-form priors, for side-by-side tables.

score_sde_pytorch's update rules are written here from their definitions (Song et al. 2021, app. E
and G, and its defaults: N betas from beta_min / N to beta_max / N, a grid uniform in t to eps,
noise left out of the last step); azula's samplers are called if it is installed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from inverse_score.prior import Prior
from inverse_score.sde import SDE, VESDE, VPSDE

EPS = {"vp": 1e-3, "subvp": 1e-3, "ve": 1e-5}


def released_times(sde: SDE, count: int) -> list[float]:
    """linspace(T, eps, N) of score_sde_pytorch."""
    return torch.linspace(1.0, EPS[sde.name], count, dtype=torch.float64).tolist()


def _chain(sde: SDE, count: int, t: float) -> tuple[float, float, float]:
    """(a, v, v of the level below): the forward chain x_i = a x_{i-1} + sqrt(v) z at index of t."""
    i = math.floor(t * (count - 1) + 1e-9)
    if isinstance(sde, VPSDE):
        step = (sde.beta_max - sde.beta_min) / (count - 1)
        beta = (sde.beta_min + i * step) / count
        # Their betas pass 1 below 20 steps, where the chain has no meaning.
        return math.sqrt(1 - beta) if beta < 1 else math.nan, beta, beta
    if not isinstance(sde, VESDE):
        raise ValueError(f"score_sde_pytorch has no chain for {sde.name!r} beyond Euler's")
    ratio = math.log(sde.sigma_max / sde.sigma_min) / (count - 1)
    upper = sde.sigma_min * math.exp(i * ratio)
    lower = sde.sigma_min * math.exp((i - 1) * ratio) if i > 0 else 0.0
    gap = upper**2 - lower**2
    return 1.0, gap, lower**2 * gap / upper**2


def _euler(sde: SDE, count: int, t: float, x: Tensor, score: Tensor) -> tuple[Tensor, float]:
    dt, g = 1.0 / count, sde.g(t)
    return x - dt * (sde.f(t) * x - g**2 * score), g * math.sqrt(dt)


def _reverse_diffusion(sde, count, t, x, score):
    if sde.name == "subvp":
        return _euler(sde, count, t, x, score)
    a, v, _ = _chain(sde, count, t)
    return (2 - a) * x + v * score, math.sqrt(v)


def _ancestral(sde, count, t, x, score):
    a, v, spread = _chain(sde, count, t)
    return (x + v * score) / a, math.sqrt(spread)


RULES = {
    "euler_maruyama": _euler,
    "reverse_diffusion": _reverse_diffusion,
    "ancestral_sampling": _ancestral,
}


def released(rule: str, langevin: float | None = None) -> Callable[..., Tensor]:
    """score_sde_pytorch's pc_sampler with one of RULES, as a sampler of this project's form.

    langevin: the corrector's snr; its step uses norms averaged over the batch, as released.
    """

    def sampler(prior: Prior, xT: Tensor, times: Sequence[float], noise: Any, **_: Any) -> Tensor:
        x, mean, count = xT, xT, len(times)
        for k, t in enumerate(times):
            if langevin is not None:
                x = _batch_langevin(prior, x, t, langevin, count, noise, k)
            mean, std = RULES[rule](prior.sde, count, t, x, prior.score(x, t))
            if k < count - 1:
                x = mean + std * noise(x, k)
        return mean

    return sampler


def _batch_langevin(prior, x, t, snr, count, noise, k):
    z, score = noise(x, count + k), prior.score(x, t)
    ratio = z.flatten(1).norm(dim=1).mean() / score.flatten(1).norm(dim=1).mean()
    alpha = _chain(prior.sde, count, t)[0] ** 2 if prior.sde.name == "vp" else 1.0
    eps = 2 * alpha * (snr * ratio) ** 2
    return x + eps * score + (2 * eps).sqrt() * z


AZULA = ("DDIMSampler", "EulerSampler", "HeunSampler", "zABSampler", "xEABSampler", "REABSampler")


def azula_sampler(name: str) -> Callable[..., Tensor]:
    """azula's deterministic sampler `name` on our prior: its own update rule, on the grid given by
    ends uniform in log-SNR (its schedule is then ours re-timed); a last x0_hat as ours."""
    import azula.denoise
    import azula.sample

    def sampler(prior: Prior, xT: Tensor, times: Sequence[float], noise: Any, **_: Any) -> Tensor:
        sde = prior.sde
        ends = [math.log(sde.ratio(times[-1])), math.log(sde.ratio(times[0]))]

        def time_of(u: Tensor) -> Tensor:
            t = sde.time(torch.exp(ends[0] + u.double() * (ends[1] - ends[0])))
            return t.clamp(times[-1], times[0])

        class Schedule:
            def __call__(self, u):
                return sde.alpha(time_of(u)), sde.sigma(time_of(u))

            def alpha(self, u):
                return self(u)[0]

            def sigma(self, u):
                return self(u)[1]

        class Denoiser(azula.denoise.Denoiser):
            schedule = Schedule()

            def forward(self, x_t, t, **_):
                return azula.denoise.DiracPosterior(mean=prior.denoise(x_t, time_of(t).item()))

        run = getattr(azula.sample, name)
        solve = run(Denoiser(), steps=len(times) - 1, silent=True, dtype=torch.float64)
        return prior.denoise(solve(xT), times[-1])

    return sampler
