"""Paths of the reverse SDE and of the probability-flow ODE in one dimension, from the same starts.

Both have the same marginals p_t (shaded); the ODE's paths are smooth and do not cross.

    python examples/trajectories.py [--num 16] [--out examples/pictures]

Draws with matplotlib, which the extra `examples` brings.
"""

from __future__ import annotations

import torch
from picture import STRONG, WARM, arguments, canvas, save
from torch import Tensor

from inverse_score import VPSDE, GaussianMixturePrior, sample
from inverse_score.sampling import make_grid

METHODS = {"reverse SDE": "ancestral", "probability-flow ODE": "heun"}


def two_humps() -> GaussianMixturePrior:
    means, covs = torch.tensor([[-1.0], [1.2]]), torch.tensor([[[0.03]], [[0.06]]])
    return GaussianMixturePrior(torch.tensor([0.4, 0.6]), means, covs, VPSDE())


def main(num: int = 16, steps: int = 400) -> tuple[list[float], dict[str, Tensor]]:
    """(times, {name: paths (steps, num)}); the starts are spread evenly over the terminal law."""
    prior = two_humps()
    times = make_grid(prior.sde, steps, end_ratio=0.02, kind="uniform")
    quantiles = (torch.arange(num, dtype=torch.float32) + 0.5) / num
    latents = torch.special.ndtri(quantiles)[:, None]
    paths = {}
    for name, method in METHODS.items():
        seen: list[Tensor] = []
        sample(
            prior,
            (num, 1),
            method=method,
            times=times,
            latents=latents,
            callback=lambda step, t, x, x0_hat, seen=seen: seen.append(x[:, 0]),
        )
        paths[name] = torch.stack(seen)
    return times, paths


if __name__ == "__main__":
    chosen = arguments(__doc__, num=16)
    times, paths = main(chosen.num)
    prior, side = two_humps(), torch.linspace(-3, 3, 241)[:, None]
    density = torch.stack([prior.log_prob(side, t).exp() for t in times[::4]], dim=1)
    figure, axes = canvas(1, 2, "The same starts at t = 1, the same marginals at every t", 3.6)
    for axis, (name, path), color in zip(axes[0], paths.items(), (WARM, STRONG), strict=True):
        shade = (density / density.amax(0)).flip(1)
        axis.imshow(
            shade.numpy(),
            extent=(times[-1], 1, -3, 3),
            aspect="auto",
            origin="lower",
            cmap="Greys",
            vmax=2,
        )
        axis.plot(times, path.numpy(), color=color, linewidth=0.9)
        axis.set(xlabel="t", ylabel="x", xlim=(1, 0), ylim=(-3, 3), title=name)
    save(figure, chosen.out / "trajectories.png")
