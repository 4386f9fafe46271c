"""Likelihoods of quantized images: the bound that likelihood training minimises, and a learned
dequantization (Song, Durkan, Murray & Ermon 2021, Maximum likelihood training of score-based
diffusion models; Ho et al. 2019, Flow++).

An image x of whole numbers 0 .. levels - 1 is spread over its bin by u in (0, 1)^d. For any law q
of u, -log P(x) <= E_q[-log p(x + u) + log q(u | x)]; uniform dequantization is q = 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .losses import Levels, draw_times, noise_error
from .prior import Prior
from .randomness import OTHER, PROBE, Noise

# -log p of data (B, *event) in nats, (B,), or an unbiased estimate of it by this noise.
Surprise = Callable[[Tensor, Noise], Tensor]


def likelihood_bound(prior: Prior, x: Tensor, noise: Noise) -> Tensor:
    """An unbiased estimate (B,) of an upper bound of E[-log p_e(x_e) | x], in nats, e = t_min.

    H(x_e | x) + KL(x_T | x to the terminal law) + ln(r_T / r_e) E |eps_hat - eps|^2 with ln r
    uniform, r noise-to-signal: theorem 3 of Song, Durkan et al. 2021 with 0.5 g^2 / sigma^2 dt
    = d ln r and times drawn by importance, so that every noise level weighs alike. x (B, *event)
    in data units, and so is the density. Differentiable in the network and in x.
    """
    x0 = prior.from_data(x)
    sde, dims = prior.sde, x0[0].numel()
    t = draw_times(prior, Levels("log-uniform"), x0, noise)
    eps = noise(x0, 0, PROBE)
    error = dims * noise_error(prior, x0, eps, t)
    span = math.log(sde.ratio(sde.T) / sde.ratio(prior.t_min))
    entropy = 0.5 * dims * math.log(2 * math.pi * math.e * sde.sigma(prior.t_min) ** 2)
    return (
        entropy + _terminal_divergence(prior, x0) + span * error + dims * math.log(prior.range[0])
    )


def _terminal_divergence(prior: Prior, x0: Tensor) -> Tensor:
    """KL(N(alpha x_0, sigma^2) to N(mean, std^2)) at T, (B,)."""
    sde, dims = prior.sde, x0[0].numel()
    alpha, sigma = sde.alpha(sde.T), sde.sigma(sde.T)
    mean, std = sde.terminal(tuple(x0.shape))
    distance = (alpha * x0 - mean.to(x0)).square().flatten(1).sum(1)
    spread = math.log(std / sigma) + 0.5 * (sigma / std) ** 2 - 0.5
    return 0.5 * distance / std**2 + dims * spread


class DequantizationFlow(nn.Module):
    """u = sigmoid(z) in (0, 1)^d, z a conditional flow of N(0, I) given x: q(u | x).

    z starts as m(x) + exp(s(x)) eps, and `couplings` affine couplings on alternating checkerboards
    (Dinh et al. 2017) follow. x (B, C, H, W) of whole numbers 0 .. levels - 1. Before training u
    is close to uniform.
    """

    def __init__(self, channels: int, levels: int, *, width: int = 32, couplings: int = 4):
        super().__init__()
        if min(channels, width, couplings) < 1 or levels < 2:
            raise ValueError(
                "channels, width and couplings must be >= 1 and levels >= 2; got "
                f"{channels}, {width}, {couplings}, {levels}"
            )
        self.config = {"channels": channels, "levels": levels, "width": width,
                       "couplings": couplings}  # fmt: skip
        self.channels, self.levels = channels, levels
        self.first = _network(channels, 2 * channels, width)
        self.couplings = nn.ModuleList(
            [_network(3 * channels, 2 * channels, width) for _ in range(couplings)]
        )

    def forward(self, x: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """(u, log q(u | x)) for eps ~ N(0, I) of x's shape; log q is (B,)."""
        self._check(x)
        image = 2 * x / (self.levels - 1) - 1
        shift, log_scale = self.first(image).chunk(2, dim=1)
        # sigmoid(1.7 eps) is close to uniform on (0, 1).
        log_scale = _bounded(log_scale) + math.log(1.7)
        z = shift + log_scale.exp() * eps
        log_det = _sum(log_scale)
        for i, network in enumerate(self.couplings):
            mask = _checkerboard(z, i % 2)
            seen = torch.cat([mask * z, image, mask.expand_as(z)], dim=1)
            shift, log_scale = network(seen).chunk(2, dim=1)
            log_scale = (1 - mask) * _bounded(log_scale)
            z = z * log_scale.exp() + (1 - mask) * shift
            log_det = log_det + _sum(log_scale)
        # d sigmoid(z) / dz = sigmoid(z) sigmoid(-z).
        log_det = log_det + _sum(functional.logsigmoid(z) + functional.logsigmoid(-z))
        log_normal = -0.5 * _sum(eps.square() + math.log(2 * math.pi))
        return torch.sigmoid(z), log_normal - log_det

    def _check(self, x: Tensor) -> None:
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(f"x must be (B, {self.channels}, H, W); got {tuple(x.shape)}")
        low, high = x.min().item(), x.max().item()
        if low < 0 or high > self.levels - 1 or not torch.equal(x, x.round()):
            raise ValueError(
                f"x must hold whole numbers 0 .. {self.levels - 1}; got values from {low} to {high}"
            )


def spread(
    x: Tensor, levels: int, noise: Noise, flow: DequantizationFlow | None = None
) -> tuple[Tensor, Tensor]:
    """((x + u) / levels in [0, 1], log q(u | x)): by the flow, or uniformly where it is None."""
    if flow is None:
        return (x + noise.uniform(x, 0, OTHER)) / levels, x.new_zeros(len(x))
    u, log_q = flow(x, noise(x, 0, OTHER))
    return (x + u) / levels, log_q


def dequantized_bits(
    x: Tensor,
    surprise: Surprise,
    levels: int,
    noise: Noise,
    *,
    flow: DequantizationFlow | None = None,
) -> Tensor:
    """E_q[-log2 p((x + u) / levels) + log2 q(u | x)] / d + log2 levels (B,), from one draw.

    An upper bound of -log2 P(x) / d on average, P the mass of x's bin under the density p whose
    negative logarithm is `surprise`. x (B, C, H, W) of whole numbers.
    """
    data, log_q = spread(x, levels, noise, flow)
    nats = surprise(data, noise) + log_q
    return nats / (x[0].numel() * math.log(2)) + math.log2(levels)


def fit(
    x: Tensor,
    surprise: Surprise,
    levels: int,
    *,
    parameters: list[nn.Parameter],
    flow: DequantizationFlow | None = None,
    steps: int = 1000,
    batch_size: int = 64,
    lr: float = 1e-3,
    seed: int = 0,
    after_step: Callable[[int, float], Any] | None = None,
) -> None:
    """Minimise the mean of `dequantized_bits` over the images x by Adam, cosine decay.

    parameters: of the flow, of the network behind `surprise` (likelihood_bound of a prior), or of
    both, which is likelihood training with variational dequantization. after_step(step, bits).
    """
    optimizer = torch.optim.Adam(parameters, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order = torch.Generator().manual_seed(seed)
    for step in range(steps):
        rows = torch.randint(len(x), (batch_size,), generator=order)
        items = [step * batch_size + i for i in range(batch_size)]
        bits = dequantized_bits(x[rows], surprise, levels, Noise(seed, items), flow=flow).mean()
        if not torch.isfinite(bits):
            raise ValueError(f"the bound is {bits.item()} after {step} steps; lower lr ({lr})")
        optimizer.zero_grad()
        bits.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if after_step is not None:
            after_step(step, bits.item())


def _network(inputs: int, outputs: int, width: int) -> nn.Sequential:
    last = nn.Conv2d(width, outputs, 3, padding=1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    return nn.Sequential(
        nn.Conv2d(inputs, width, 3, padding=1), nn.SiLU(),
        nn.Conv2d(width, width, 3, padding=1), nn.SiLU(), last,
    )  # fmt: skip


def _bounded(log_scale: Tensor) -> Tensor:
    """Between -3 and 3, so that no coupling's scale explodes early in training."""
    return 3 * torch.tanh(log_scale / 3)


def _checkerboard(like: Tensor, parity: int) -> Tensor:
    rows = torch.arange(like.shape[2], device=like.device)[:, None]
    columns = torch.arange(like.shape[3], device=like.device)
    return ((rows + columns + parity) % 2).to(like.dtype)[None, None]


def _sum(x: Tensor) -> Tensor:
    return x.flatten(1).sum(1)
