"""Your own prior: any nn.Module that denoises, trained here in seconds, then used by `solve`.

    python examples/your_own_prior.py [--size 32] [--train_steps 400] [--samples 4] [--steps 20]

The images are dead leaves (Lee, Mumford & Huang 2001): discs that cover each other, as objects do.
Five convolutions learn E[x_0 | x_t]; `Prior` needs no more than that and the SDE they were trained
under. With its error on held-out images measured once (`error_spectrum`), `solve` knows how far to
trust it. A picture that it never saw is then recovered from a quarter of its pixels, with noise.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from panels import arguments, heat, picture, psnr, sheet
from torch import Tensor, nn

from inverse_score import KarrasSDE, Prior, Reconstruction, sample, solve
from inverse_score.posterior import error_spectrum
from operators import Mask

# Sampling starts at noise 20, where nothing of an image is left.
SDE, SIGMA_DATA, NOISE = KarrasSDE(20.0), 0.5, 0.1


class Denoiser(nn.Module):
    """x0_hat = c_skip x + c_out F(c_in x, ln s)  (Karras et al. 2022, eq. 7), s = t here."""

    def __init__(self, width: int = 24):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(2, width, 3, padding=1)]
        # Dilations see 31 pixels across without a pyramid.
        for reach in (2, 4, 8):
            layers += [nn.SiLU(), nn.Conv2d(width, width, 3, padding=reach, dilation=reach)]
        self.layers = nn.Sequential(*layers, nn.SiLU(), nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        s = t[:, None, None, None]
        total = s**2 + SIGMA_DATA**2
        level = (s.log() / 4).expand_as(x)
        raw = self.layers(torch.cat([x / total.sqrt(), level], 1))
        return SIGMA_DATA**2 / total * x + s * SIGMA_DATA / total.sqrt() * raw


class Found(NamedTuple):
    losses: list[float]
    truth: Tensor
    y: Tensor
    tv: Tensor
    rec: Reconstruction
    draws: Tensor


def dead_leaves(count: int, size: int, seed: int) -> Tensor:
    """(count, 1, size, size) in [-1, 1]: thirty discs of random grey, the later ones on top."""
    draw = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(*[torch.arange(float(size))] * 2, indexing="ij")
    images = torch.zeros(count, size, size)
    for _ in range(30):
        row, column, radius, grey = torch.rand(4, count, 1, 1, generator=draw)
        radius = size * (0.06 + 0.2 * radius**2)
        inside = (y - size * row) ** 2 + (x - size * column) ** 2 < radius**2
        images = torch.where(inside, 2 * grey - 1, images)
    return images[:, None]


def train(net: nn.Module, size: int, steps: int, seed: int) -> list[float]:
    """Denoising score matching over noise levels ln s ~ N(-1, 1.3^2); the loss of every step."""
    draw = torch.Generator().manual_seed(seed)
    images = dead_leaves(1024, size, seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    losses = []
    for _ in range(steps):
        x0 = images[torch.randint(len(images), (8,), generator=draw)]
        s = (1.3 * torch.randn(8, generator=draw) - 1).exp().clamp(0.01, SDE.T)
        noise = s[:, None, None, None] * torch.randn(x0.shape, generator=draw)
        weight = (s**2 + SIGMA_DATA**2) / (s * SIGMA_DATA) ** 2
        error = (net(x0 + noise, s) - x0).square().mean((1, 2, 3))
        loss = (weight * error).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return losses


def main(
    size: int = 32, train_steps: int = 400, samples: int = 4, steps: int = 20, seed: int = 0
) -> Found:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Denoiser()
    losses = train(net, size, train_steps, seed)
    prior = Prior(net.eval(), SDE, output="x0", event_shape=(1, None, None), t_min=0.01)
    # Other seeds than the training's: pictures that the network never saw.
    prior.card["error_spectrum"] = error_spectrum(prior, dead_leaves(16, size, seed + 2))

    truth = dead_leaves(1, size, seed + 1)
    draw = torch.Generator().manual_seed(seed)
    mask = (torch.rand(size, size, generator=draw) < 0.25).float()
    A = Mask(mask, image_shape=(1, size, size))
    y = A(truth + NOISE * torch.randn(truth.shape, generator=draw))
    rec = solve(y, A, prior, noise_std=NOISE, num_samples=samples, steps=steps, seed=seed)
    tv = solve(y, A, prior, noise_std=NOISE, method="tv").mean
    draws = sample(prior, (samples, 1, size, size), steps=steps, seed=seed)
    return Found(losses, truth[0], y[0], tv[0], rec, draws)


if __name__ == "__main__":
    defaults = {"size": 32, "train_steps": 400, "samples": 4, "steps": 20}
    chosen = vars(arguments(__doc__, "your_own_prior.png", **defaults))
    out = chosen.pop("out")
    losses, truth, y, tv, rec, draws = main(**chosen)
    start, end = (sum(part) / len(part) for part in (losses[:20], losses[-100:]))
    print(f"loss {start:.2f} -> {end:.2f} in {len(losses)} steps")
    scores = {"total variation": tv, "one sample": rec.samples[0, 0], "mean": rec.mean[0]}
    scores = {name: psnr(x, truth, 2) for name, x in scores.items()}
    for name, score in scores.items():
        print(f"{name:15s} {score:.1f} dB")
    print(f"misfit {rec.misfit.mean():.2f} (1 is right); {rec.method}")

    def shown(x: Tensor):
        return picture((x + 1) / 2)

    rows = [[("truth", shown(truth)), ("a quarter, noisy", shown(y))]]
    rows[0] += [(f"TV, {scores['total variation']:.1f} dB", shown(tv))]
    rows[0] += [(f"mean, {scores['mean']:.1f} dB", shown(rec.mean[0]))]
    rows[0] += [("std", heat(rec.std[0, 0], 0.6))]
    rows.append([(f"sample {i + 1}", shown(x[0])) for i, x in enumerate(rec.samples[:2])])
    rows[1] += [(f"of the prior {i + 1}", shown(x)) for i, x in enumerate(draws[:3])]
    sheet(rows, out, zoom=4)
