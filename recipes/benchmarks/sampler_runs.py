"""What the tables of samplers share: SDEs, budgets, grids, fast noise, fast priors, and cells."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from inverse_score.gaussian import GaussianMixturePrior
from inverse_score.prior import Prior
from inverse_score.sampling import SAMPLERS, counted, end_ratio, make_grid, start
from inverse_score.sde import SDE, VESDE, VPSDE, SubVPSDE

BUDGETS = (8, 12, 20, 35, 50, 100, 1000)
SDES: dict[str, SDE] = {"VP": VPSDE(), "sub-VP": SubVPSDE(), "VE(50)": VESDE()}
TWO_CALLS = ("heun", "stochastic-rk")
AFFINE = (
    "dpm++2m",
    "dpm++2m-sde",
    "heun",
    "stochastic-rk",
    "ddim",
    "euler-maruyama",
    "ancestral",
    "reverse-diffusion",
)


class BatchNoise:
    """Noise for many small items at once: Noise seeds each item apart, which costs microseconds."""

    def __init__(self, seed: int = 0):
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, like: Tensor, step: int, stream: int = 0) -> Tensor:
        return torch.randn(like.shape, generator=self.generator, dtype=like.dtype)

    def uniform(self, like: Tensor, step: int, stream: int = 0) -> Tensor:
        return torch.rand(like.shape, generator=self.generator, dtype=like.dtype)


class IsotropicModes(Prior):
    """The denoiser of a mixture whose modes are all N(m_k, std^2 I), at a tenth of the cost."""

    def __init__(self, mixture: GaussianMixturePrior):
        super().__init__(
            mixture.denoise,
            mixture.sde,
            output="x0",
            event_shape=mixture.event_shape,
            t_min=mixture.t_min,
        )
        self.means, self.log_weights = mixture.means.float(), mixture.weights.log().float()
        self.variance = mixture.covs[0, 0, 0].item()

    def denoise(self, x: Tensor, t: Any) -> Tensor:
        """m + alpha std^2 / v (x - alpha m), m = sum_k r_k m_k and v = alpha^2 std^2 + sigma^2."""
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        v = alpha**2 * self.variance + sigma**2
        square = self.means.square().sum(1)
        log_r = self.log_weights + (alpha * x @ self.means.T - 0.5 * alpha**2 * square) / v
        m = torch.softmax(log_r, dim=1) @ self.means
        return m + alpha * self.variance / v * (x - alpha * m)


def grid_for(prior: Prior, nfe: int, calls: int = 1) -> list[float]:
    """The default grid of at most `nfe` calls: `calls` of them a step, and the last x0_hat."""
    return make_grid(prior.sde, (nfe - 1) // calls + 1, end_ratio=end_ratio(prior))


def draw(prior: Prior, num: int, name: str, times: Sequence[float], **options: Any):
    """(samples, calls of the prior) from the terminal law."""
    watched, counter = counted(prior)
    noise: Any = BatchNoise()
    xT = start(prior, (num, *prior.event_shape), noise)  # type: ignore[misc]
    return SAMPLERS[name](watched, xT, times, noise, **options), counter.nfe


def markdown(title: str, note: str, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [f"### {title}", "", note, "", "| " + " | ".join(head) + " |"]
    lines.append("|" + "---|" * len(head))
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    if math.isnan(value):
        return "-"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 100 or value == 0 else f"{value:.3g}"
