"""Langevin dynamics with and without annealing on two modes with a low-density gap between them.

After Song & Ermon 2019, fig. 3: the modes weigh 0.8 and 0.2. Plain Langevin dynamics starts from a
uniform square and keeps the weights of its basins; annealed Langevin dynamics finds the true ones.

    python examples/langevin_annealing.py [--num 640] [--out examples/pictures]

Draws with matplotlib, which the extra `examples` brings.
"""

from __future__ import annotations

import torch
from picture import PALE, STRONG, arguments, canvas, save

from inverse_score import VESDE, GaussianMixturePrior, sample
from inverse_score.sampling import make_grid


def two_modes() -> GaussianMixturePrior:
    """0.8 N((5, 5), I) + 0.2 N((-5, -5), I) under VE noise up to 20."""
    eye = torch.eye(2).expand(2, 2, 2)
    means = torch.tensor([[5.0, 5.0], [-5.0, -5.0]])
    return GaussianMixturePrior(torch.tensor([0.8, 0.2]), means, eye, VESDE(0.1, 20.0))


def upper_share(x: torch.Tensor) -> float:
    """The share of points nearer to (5, 5)."""
    return (x.sum(1) > 0).double().mean().item()


def main(num: int = 640) -> dict[str, torch.Tensor]:
    prior = two_modes()
    square = 16 * torch.rand(num, 2, generator=torch.Generator().manual_seed(0)) - 8
    # Latents are in units of the terminal std; Langevin dynamics takes them where they lie.
    plain_grid = make_grid(prior.sde, 500, end_ratio=0.3)
    latents = square / prior.sde.sigma(prior.sde.T)
    ladder = make_grid(prior.sde, 30, end_ratio=0.15)
    plain = {"method": "langevin", "times": plain_grid, "latents": latents}
    annealed = {"method": "annealed-langevin", "times": ladder, "inner": 15}
    return {
        "exact": prior.sample(num, dtype=torch.float32),
        "Langevin": sample(prior, (num, 2), **plain),
        "annealed Langevin": sample(prior, (num, 2), **annealed),
    }


if __name__ == "__main__":
    chosen = arguments(__doc__, num=640)
    found = main(chosen.num)
    figure, axes = canvas(1, 3, "Two modes far apart, the upper one of weight 0.8")
    for axis, (name, x) in zip(axes[0], found.items(), strict=True):
        axis.scatter(*x.T.numpy(), s=3, color=STRONG if name != "exact" else PALE, linewidths=0)
        axis.set(xlim=(-9, 9), ylim=(-9, 9), aspect="equal")
        axis.set_title(f"{name}: {upper_share(x):.2f} in it", fontsize=10)
    save(figure, chosen.out / "langevin_annealing.png")
