"""What the smallest noise scale does: sampling that ends too early blurs, and x0_hat mends part.

Points near a circle (48 narrow modes of std 0.02). Each column ends at another noise-to-signal;
above the state where sampling stops, below its x0_hat, the last step of every sampler here.

    python examples/smallest_noise_scale.py [--num 1500] [--out examples/pictures]

Draws with matplotlib, which the extra `examples` brings.
"""

from __future__ import annotations

import math

import torch
from picture import STRONG, WARM, arguments, canvas, save

from inverse_score import VPSDE, GaussianMixturePrior, sample
from inverse_score.sampling import make_grid

ENDS = (0.5, 0.2, 0.05, 0.005)
STD = 0.02


def ring() -> GaussianMixturePrior:
    angle = 2 * math.pi * torch.arange(48, dtype=torch.float64) / 48
    means = torch.stack([angle.cos(), angle.sin()], dim=1)
    covs = STD**2 * torch.eye(2, dtype=torch.float64).expand(48, 2, 2)
    return GaussianMixturePrior(torch.ones(48), means, covs, VPSDE())


def main(num: int = 1500, steps: int = 40) -> dict[float, tuple[torch.Tensor, torch.Tensor]]:
    """For each end: the state there and its x0_hat."""
    prior, found = ring(), {}
    for end in ENDS:
        last = []
        grid = make_grid(prior.sde, steps, end_ratio=end)

        def keep(step, t, x, x0_hat, last=last):
            last[:] = [x / prior.sde.alpha(t), x0_hat]

        sample(prior, (num, 2), method="dpm++2m-sde", times=grid, callback=keep)
        found[end] = (last[0], last[1])
    return found


def radial_error(x: torch.Tensor) -> float:
    """RMS distance from the circle."""
    return (x.norm(dim=1) - 1).square().mean().sqrt().item()


if __name__ == "__main__":
    chosen = arguments(__doc__, num=1500)
    found = main(chosen.num)
    figure, axes = canvas(
        2,
        len(ENDS),
        f"Sampling that stops at four values of sigma / alpha; the true radial std is {STD}",
    )
    for column, (end, states) in enumerate(found.items()):
        for row, (name, x) in enumerate(zip(("state", "x0_hat"), states, strict=True)):
            axis = axes[row][column]
            axis.scatter(*x.T.numpy(), s=2, color=(WARM, STRONG)[row], linewidths=0)
            axis.set(xlim=(-2, 2), ylim=(-2, 2), aspect="equal")
            axis.set_title(f"{name} at {end}: radial RMS {radial_error(x):.3f}", fontsize=10)
    save(figure, chosen.out / "smallest_noise_scale.png")
