"""Your own prior: any nn.Module that denoises, trained here in seconds, then used by `solve`.

    python examples/your_own_prior.py [--train_steps 2000] [--samples 4] [--steps 20]

The images are single rings on a slope of grey, 16 x 16. A perceptron of two hidden layers learns
E[x_0 | x_t]; `Prior` needs no more than that and the SDE it was trained under. With its error on
held-out images measured once (`error_spectrum`), `solve` knows how far to trust it. A ring that it
never saw is then recovered from an eighth of its pixels, with noise.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from panels import arguments, heat, picture, psnr, sheet
from torch import Tensor, nn

from inverse_score import KarrasSDE, Prior, Reconstruction, sample, solve
from inverse_score.posterior import error_spectrum
from operators import Mask

SIDE, SIGMA_DATA, NOISE = 16, 0.5, 0.05
# Sampling starts at noise 20, where nothing of an image is left.
SDE = KarrasSDE(20.0)


class Denoiser(nn.Module):
    """x0_hat = c_skip x + c_out F(c_in x, ln s)  (Karras et al. 2022, eq. 7), s = t here."""

    def __init__(self, width: int = 384):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(SIDE**2 + 1, width), nn.SiLU(),
            nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, SIDE**2),
        )  # fmt: skip

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        s = t[:, None]
        total = s**2 + SIGMA_DATA**2
        flat = x.flatten(1)
        raw = self.layers(torch.cat([flat / total.sqrt(), s.log() / 4], 1))
        return (SIGMA_DATA**2 / total * flat + s * SIGMA_DATA / total.sqrt() * raw).reshape(x.shape)


class Found(NamedTuple):
    losses: list[float]
    truth: Tensor
    y: Tensor
    tv: Tensor
    rec: Reconstruction
    draws: Tensor


def rings(count: int, seed: int) -> Tensor:
    """(count, 1, SIDE, SIDE) in about [-1, 1]: rings of random place, radius, width and grey."""
    draw = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(*[torch.arange(float(SIDE))] * 2, indexing="ij")
    row, column, radius, width, ring, back, down, across = torch.rand(
        8, count, 1, 1, generator=draw
    )
    distance = torch.hypot(y - 4 - 8 * row, x - 4 - 8 * column) - (2.5 + 3 * radius)
    slope = ((down - 0.5) * y + (across - 0.5) * x) / SIDE
    inside = torch.sigmoid(3 * (0.8 + width - distance.abs()))
    return torch.lerp(slope - 0.8 * back, 0.3 + 0.7 * ring, inside)[:, None]


def train(net: nn.Module, steps: int, seed: int) -> list[float]:
    """Denoising score matching over noise levels ln s ~ N(-1, 1.3^2); the loss of every step."""
    draw = torch.Generator().manual_seed(seed)
    images = rings(20000, seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    losses = []
    for _ in range(steps):
        x0 = images[torch.randint(len(images), (64,), generator=draw)]
        s = (1.3 * torch.randn(64, generator=draw) - 1).exp().clamp(0.01, SDE.T)
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


def main(train_steps: int = 2000, samples: int = 4, steps: int = 20, seed: int = 0) -> Found:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Denoiser()
    losses = train(net, train_steps, seed)
    prior = Prior(net.eval(), SDE, output="x0", event_shape=(1, SIDE, SIDE), t_min=0.01)
    # Other seeds than the training's: pictures that the network never saw.
    prior.card["error_spectrum"] = error_spectrum(prior, rings(64, seed + 2))

    truth = rings(1, seed + 1)
    draw = torch.Generator().manual_seed(seed)
    mask = (torch.rand(SIDE, SIDE, generator=draw) < 0.125).float()
    A = Mask(mask, image_shape=(1, SIDE, SIDE))
    y = A(truth + NOISE * torch.randn(truth.shape, generator=draw))
    rec = solve(y, A, prior, noise_std=NOISE, num_samples=samples, steps=steps, seed=seed)
    tv = solve(y, A, prior, noise_std=NOISE, method="tv").mean
    draws = sample(prior, (samples, 1, SIDE, SIDE), steps=steps, seed=seed)
    return Found(losses, truth[0], y[0], tv[0], rec, draws)


if __name__ == "__main__":
    defaults = {"train_steps": 2000, "samples": 4, "steps": 20}
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

    rows = [[("truth", shown(truth)), ("an eighth, noisy", shown(y))]]
    rows[0] += [(f"TV, {scores['total variation']:.1f} dB", shown(tv))]
    rows[0] += [(f"mean, {scores['mean']:.1f} dB", shown(rec.mean[0]))]
    rows[0] += [("std", heat(rec.std[0, 0], 0.6))]
    rows.append([(f"sample {i + 1}", shown(x[0])) for i, x in enumerate(rec.samples[:2])])
    rows[1] += [(f"of the prior {i + 1}", shown(x)) for i, x in enumerate(draws[:3])]
    sheet(rows, out, zoom=8)
