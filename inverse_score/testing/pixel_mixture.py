"""A density of whole-numbered pixels that is right before it is trained: two components a pixel."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..dequantization import spread
from ..prior import Prior
from ..randomness import Noise
from ..sde import VPSDE

LEVELS, SIDE = 256, 14


class DigitDenoiser(nn.Module):
    """x0_hat = sum_k w_k (s_k^2 u + r^2 h_k) / (s_k^2 + r^2), u = x / alpha, r = sigma / alpha.

    The posterior mean of a pixel that is N(h_k, s_k^2) with chance p_k given all the others, w_k
    proportional to p_k N(u; h_k, s_k^2 + r^2); p, h and s from a residual network of dense layers.
    Before training k = 0 is the empty background's bin and k = 1 the pixel's mean and std. So no
    noise level asks the network for an amplification: at 256 levels eps_hat itself would have to
    resolve a thousandth of its input.
    """

    h: Tensor
    s: Tensor
    frequencies: Tensor

    def __init__(self, sde: VPSDE, mean: Tensor, std: Tensor, width: int = 384, blocks: int = 3):
        super().__init__()
        self.sde, pixels = sde, mean.numel()
        self.first = nn.Linear(pixels + 32, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
                          nn.Linear(width, width)) for _ in range(blocks)
        )  # fmt: skip
        self.levels = nn.ModuleList(nn.Linear(32, width) for _ in range(blocks))
        self.last = nn.Linear(width, 6 * pixels)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        # The bin of 0 is uniform from -1 to -1 + 2 / LEVELS.
        bin_std = 1 / (LEVELS * math.sqrt(3))
        self.register_buffer("h", torch.stack([torch.full_like(mean, 1 / LEVELS - 1), mean]))
        self.register_buffer("s", torch.stack([torch.full_like(mean, bin_std), std]))
        self.register_buffer("frequencies", 2.0 ** torch.linspace(-3, 3, 16))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        r, alpha = (level.reshape(-1, 1, 1, 1) for level in (self.sde.ratio(t), self.sde.alpha(t)))
        phase = r.flatten(1).log() * self.frequencies
        features = torch.cat([phase.sin(), phase.cos()], dim=1)
        state = self.first(torch.cat([x.flatten(1), features], dim=1))
        for block, level in zip(self.blocks, self.levels, strict=True):
            state = state + block(state + level(features))
        out = self.last(functional.silu(state)).reshape(len(x), 3, *self.h.shape)
        chance, shift, growth = out.unbind(1)
        # (B, 2, 1, 14, 14) from here, the components second.
        u, r = (x / alpha)[:, None], r[:, None]
        h, s = self.h + self.s * shift, self.s * torch.exp(4 * torch.tanh(growth))
        v = s**2 + r**2
        w = torch.softmax(chance - 0.5 * (u - h) ** 2 / v - 0.5 * v.log(), dim=1)
        return (w * (s**2 * u + r**2 * h) / v).sum(1)


def new_prior(x: Tensor, seed: int = 0) -> Prior:
    """An untrained prior of digits in [0, 1]."""
    torch.manual_seed(seed)
    data, _ = spread(x[:4096], LEVELS, Noise(seed, range(len(x[:4096]))))
    data = 2 * data - 1
    network = DigitDenoiser(VPSDE(), data.mean(0), data.std(0))
    # t_min is Song, Durkan et al.'s: sigma 0.001 in units of half the range, an eighth of a bin.
    return Prior(network, VPSDE(), output="x0", event_shape=(1, SIDE, SIDE), range=(0.5, 0.5),
                 t_min=1e-5)  # fmt: skip
