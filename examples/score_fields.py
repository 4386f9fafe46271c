"""Score fields in the plane: a small network trained by denoising score matching against the truth.

    python examples/score_fields.py [--num 1500] [--out examples/pictures]

--num counts training steps. Where the data never go at a low noise level the learnt field is wrong,
and that is why sampling starts from a high one. Draws with matplotlib, which the extra `examples`
brings.
"""

from __future__ import annotations

import math

import torch
from picture import PALE, STRONG, WARM, arguments, canvas, save
from torch import Tensor, nn

from inverse_score import GaussianMixturePrior, KarrasSDE, Prior

LEVELS = (2.0, 0.7, 0.2)


def three_modes() -> GaussianMixturePrior:
    means = torch.tensor([[0.0, 1.6], [-1.4, -0.8], [1.4, -0.8]])
    covs = torch.tensor([[0.3, 0.0], [0.0, 0.05]]).expand(3, 2, 2)
    return GaussianMixturePrior(torch.tensor([0.5, 0.3, 0.2]), means, covs, KarrasSDE(5.0))


class Denoiser(nn.Module):
    """x0_hat = (x + sigma F(x / sqrt(1 + sigma^2), log sigma)) / (1 + sigma^2)."""

    def __init__(self, width: int = 64):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(3, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, 2),
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        sigma = t[:, None]
        norm = (1 + sigma**2).sqrt()
        F = self.body(torch.cat([x / norm, sigma.log()], dim=1))
        return x / norm**2 + sigma / norm * F


def train(truth: GaussianMixturePrior, steps: int) -> Prior:
    """Minimize E |x0_hat - x_0|^2 (1 + sigma^2) / sigma^2, log sigma uniform from .05 to 5."""
    torch.manual_seed(0)
    network, draw = Denoiser(), torch.Generator().manual_seed(1)
    data = truth.sample(20000, dtype=torch.float32)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    for _ in range(steps):
        x0 = data[torch.randint(len(data), (256,), generator=draw)]
        log_sigma = torch.rand(256, generator=draw) * math.log(100) + math.log(0.05)
        sigma = log_sigma.exp()
        x = x0 + sigma[:, None] * torch.randn(256, 2, generator=draw)
        weight = (1 + sigma**2) / sigma**2
        loss = ((network(x, sigma) - x0).square().sum(1) * weight).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return Prior(network, truth.sde, output="x0", event_shape=(2,), t_min=0.05)


@torch.no_grad()
def errors(learnt: Prior, truth: GaussianMixturePrior, num: int = 4000) -> list[float]:
    """Relative RMS error of the score at each of LEVELS, over draws of p_t."""
    found = []
    for t in LEVELS:
        x = truth.sample(num, t=t, dtype=torch.float32)
        score = truth.score(x, t)
        miss = (learnt.score(x, t) - score).square().sum() / score.square().sum()
        found.append(miss.sqrt().item())
    return found


def main(num: int = 1500) -> tuple[Prior, GaussianMixturePrior, list[float]]:
    truth = three_modes()
    learnt = train(truth, num)
    return learnt, truth, errors(learnt, truth)


if __name__ == "__main__":
    chosen = arguments(__doc__, num=1500)
    learnt, truth, found = main(chosen.num)
    figure, axes = canvas(1, len(LEVELS), "sigma x score: exact (blue) and learnt (orange)", 3.8)
    side = torch.linspace(-3, 3, 15)
    points = torch.cartesian_prod(side, side)
    for axis, t, error in zip(axes[0], LEVELS, found, strict=True):
        axis.scatter(*truth.sample(600, t=t).T.numpy(), s=2, color=PALE, linewidths=0)
        for prior, color in ((truth, STRONG), (learnt, WARM)):
            with torch.no_grad():
                arrows = t * prior.score(points, t)
            # Equal lengths would hide the size; the square root keeps small arrows visible.
            arrows = arrows / arrows.norm(dim=1, keepdim=True).sqrt().clamp(min=1e-6)
            axis.quiver(
                *points.T.numpy(), *arrows.T.numpy(), color=color, scale=28, width=0.004, alpha=0.85
            )
        axis.set(xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), aspect="equal")
        axis.set_title(f"sigma {t}: error {error:.2f} where data are", fontsize=10)
    save(figure, chosen.out / "score_fields.png")
