"""Where in an image a denoiser errs: the error's std from pixel to pixel, told by x0_hat itself.

A spectrum alone takes the error for stationary: as large in air as at an edge, where a denoiser's
errors differ tenfold. So Cov[x_0 | x_t] = S F^T diag(c) F S with S = diag(s),

    s_i^2 = E[e_i^2 | a_i, m_i] / E[e^2],

e = x_0 - x0_hat, a_i the standard deviation and m_i the mean of x0_hat over window x window pixels
about i, as held-out images show it at each noise level. The card's "error_spectrum" holds it as
"local": {"window", "activity": J nodes of a, evenly spaced in the logarithm, "level": K nodes of m,
evenly spaced, "scale": L x J x K, s at the nodes}. Channels share one s; m is their mean, and the
magnitude where there are two (a complex image).
"""

from __future__ import annotations

import functools
import math
import operator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

WINDOW = 5
# Nodes of activity and of level, and the pixels' worth of weight that a coarser mean has in each.
_ACTIVITY, _LEVEL, _WEIGHT = 16, 8, 200.0


class LocalScale:
    """s as a function of x0_hat and the noise level, from the card's "local"."""

    def __init__(self, card: dict[str, Any], log_sigma: Tensor):
        need = {"window", "activity", "level", "scale"}
        missing = need - set(card)
        if missing:
            raise ValueError(
                f'"local" of an error spectrum has {", ".join(sorted(need))}; '
                f"missing {sorted(missing)}"
            )
        self.window, self.log_sigma = int(card["window"]), log_sigma
        self.activity, self.level = card["activity"], card["level"]
        self.log_scale = torch.tensor(card["scale"], dtype=torch.float64).clamp_min(1e-6).log()
        expected = (len(log_sigma), len(self.activity), len(self.level))
        if tuple(self.log_scale.shape) != expected or self.window % 2 == 0:
            raise ValueError(
                f"scale must be levels x activity x level = {expected} and window odd; got "
                f"{tuple(self.log_scale.shape)} and {self.window}"
            )

    def __call__(self, x0_hat: Tensor, ratio: float | Tensor) -> Tensor:
        """(B, 1, H, W) for x0_hat (B, C, H, W) at noise-to-signal `ratio`, a float or (B,)."""
        log_s = between(self.log_sigma, self.log_scale, ratio)
        return read_off(log_s, x0_hat, self.window, self.activity, self.level)


def read_off(
    log_s: Tensor, x0_hat: Tensor, window: int, activity: list[float], level: list[float]
) -> Tensor:
    """s (B, 1, H, W) about x0_hat (B, C, H, W) from ln s at the nodes, (1 or B, J, K)."""
    a, m = positions(x0_hat, window, activity, level)
    # grid_sample's -1 and 1 are the first and the last node; beyond them their values stay.
    at = torch.stack([2 * m / (len(level) - 1), 2 * a / (len(activity) - 1)], -1) - 1
    log_s = log_s.to(x0_hat.dtype).to(x0_hat.device).expand(len(x0_hat), *log_s.shape[1:])
    s = functional.grid_sample(
        log_s[:, None], at[:, 0], mode="bilinear", padding_mode="border", align_corners=True
    )
    return box(s.exp().square(), window).sqrt()


def between(log_sigma: Tensor, values: Tensor, ratio: float | Tensor) -> Tensor:
    """values (L, ...) at the levels exp(log_sigma), linear in log(ratio): (1 or B, ...), CPU."""
    r = torch.as_tensor(ratio, dtype=torch.float64).cpu().reshape(-1).log()
    r = r.clamp(log_sigma[0], log_sigma[-1])
    left = torch.searchsorted(log_sigma, r, right=True).clamp(1, len(log_sigma) - 1)
    part = (r - log_sigma[left - 1]) / (log_sigma[left] - log_sigma[left - 1])
    part = part.reshape(-1, *(1,) * (values.ndim - 1))
    return torch.lerp(values[left - 1], values[left], part)


def box(x: Tensor, window: int) -> Tensor:
    """Means over window x window pixels, the border's repeated beyond it."""
    side, (H, W) = window // 2, x.shape[-2:]
    x = functional.pad(x, (side, side, side, side), mode="replicate")
    # Sums of shifted copies: ten times quicker than avg_pool2d on a CPU.
    x = _sum([x.narrow(-1, k, W) for k in range(window)])
    return _sum([x.narrow(-2, k, H) for k in range(window)]) / window**2


def _sum(parts: list[Tensor]) -> Tensor:
    """One after the other: a stack of them would be a copy of each."""
    return functools.reduce(operator.add, parts)


def positions(
    x0_hat: Tensor, window: int, activity: list[float], level: list[float]
) -> tuple[Tensor, Tensor]:
    """Where each pixel's a and m lie among the nodes, as fractional indices (B, 1, H, W)."""
    mean = box(x0_hat, window)
    variance = (box(x0_hat.square(), window) - mean.square()).clamp_min(0.0)
    a = variance.sum(1, keepdim=True).sqrt().clamp_min(activity[0])
    log_step = math.log(activity[-1] / activity[0]) / (len(activity) - 1)
    m = box(_grey(x0_hat), window) if x0_hat.shape[1] == 2 else mean.mean(1, keepdim=True)
    where_m = (m - level[0]) * ((len(level) - 1) / (level[-1] - level[0]))
    where_a = (a / activity[0]).log() / log_step
    return where_a.clamp(0, len(activity) - 1), where_m.clamp(0, len(level) - 1)


def _grey(u: Tensor) -> Tensor:
    """The mean over channels; the magnitude of a complex image's two."""
    return (u.square().sum(1, keepdim=True)).sqrt() if u.shape[1] == 2 else u.mean(1, keepdim=True)


def nodes(u: Tensor, window: int = WINDOW) -> tuple[list[float], list[float]]:
    """Nodes of activity and level that span what images u (N, C, H, W) and their blurs show."""
    std = max(float(u.std()), 1e-12)
    activity = [std * 10 ** (-2.6 + 3.0 * j / (_ACTIVITY - 1)) for j in range(_ACTIVITY)]
    m = box(_grey(u), window).flatten()
    m = m[:: 1 + m.numel() // 1_000_000]
    low, high = (float(m.quantile(q)) for q in (0.005, 0.995))
    high = max(high, low + 1e-6 * std)
    return activity, [low + (high - low) * k / (_LEVEL - 1) for k in range(_LEVEL)]


def tabulate(
    x0_hat: Tensor, error: Tensor, window: int, activity: list[float], level: list[float]
) -> Tensor:
    """s at the nodes, (J, K), from x0_hat and error (N, C, H, W) of one noise level.

    Pixels count for their nearest node. A node's mean square starts from that of its activity
    alone with the weight of 200 pixels, and that from the mean of the nearest activity seen.
    """
    J, K = len(activity), len(level)
    a, m = positions(x0_hat, window, activity, level)
    cell = (a.round() * K + m.round()).long().flatten()
    square = error.square().mean(1).flatten().double()
    count = torch.bincount(cell, minlength=J * K).double().reshape(J, K)
    total = torch.bincount(cell, square, minlength=J * K).reshape(J, K)
    rows, sums = count.sum(1), total.sum(1)
    seen = (rows >= _WEIGHT).nonzero().flatten()
    if len(seen) == 0:
        return torch.ones(J, K, dtype=torch.float64)
    nearest = seen[(torch.arange(J)[:, None] - seen).abs().argmin(1)]
    mean = (sums[nearest] / rows[nearest])[:, None]
    variance = (total + _WEIGHT * mean) / (count + _WEIGHT)
    return (variance / square.mean().clamp_min(1e-30)).sqrt()
