"""What training gives: learned scores against closed forms, likelihood, memory, and speed.

    python tests/studies/training.py [--only points,digits,memory,speed] [--scale 1.0]

points: a 2-D mixture, four objectives, the learned score's relative error at noise levels and the
held-out cross-entropy against the true entropy. digits: scikit-learn's 8x8 digits; a mixture of
Gaussians fitted to them, whose score is known, and the digits themselves, in held-out bits/dim.
memory: the resident size of 1000 batches from a folder of PNGs. speed: images a second of a
training step and of inference against diffusers' UNet2DModel and denoising-diffusion-pytorch's
Unet at equal parameters, each as it comes and with bfloat16 and channels-last. Sections print as
they finish and are kept in results/training.md.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inverse_score import VPSDE, GaussianMixturePrior, KarrasSDE, Prior
from inverse_score.io.runs.atomic import write_text
from inverse_score.likelihood import bits_per_dim, log_likelihood
from inverse_score.losses import DenoisingLoss, Levels, SlicedLoss
from inverse_score.training.state import EMA

RESULTS = Path(__file__).parent / "results"
T_MIN = 1e-3
OBJECTIVES = {
    "sigma^2, t uniform": DenoisingLoss(),
    "g^2 (likelihood), t uniform": DenoisingLoss(Levels("uniform"), "g2"),
    "g^2 (likelihood), importance-sampled t": DenoisingLoss(Levels("log-uniform"), "g2"),
    "Karras": DenoisingLoss(Levels("log-normal", -0.5, 1.2), "karras", 1.0),
    "sliced, variance-reduced": SlicedLoss(Levels("log-uniform")),
}


class PointScore(nn.Module):
    """eps_hat(x, t) of points (B, d): dense residual blocks, told ln sigma / alpha."""

    def __init__(self, dim: int, sde: Any, width: int = 128, blocks: int = 3):
        super().__init__()
        self.sde = sde
        self.first = nn.Linear(dim + 16, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(blocks)
        )
        self.last = nn.Linear(width, dim)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        level = self.sde.ratio(t).log()[:, None]
        phase = level * torch.linspace(0.2, 3.0, 8)
        h = self.first(torch.cat([x, phase.sin(), phase.cos()], 1))
        for block in self.blocks:
            h = h + block(h)
        return self.last(h)


class Draws:
    """The losses' noise from one generator: quicker than the package's for tiny events."""

    def __init__(self, seed: int):
        self.rng = torch.Generator().manual_seed(seed)

    def __call__(self, like: Tensor, step: int, stream: int = 0) -> Tensor:
        return torch.randn(like.shape, generator=self.rng, dtype=like.dtype)

    def uniform(self, like: Tensor, step: int, stream: int = 0) -> Tensor:
        return torch.rand(like.shape, generator=self.rng, dtype=like.dtype)

    def rademacher(self, like: Tensor, step: int, stream: int = 0) -> Tensor:
        return (self.uniform(like, step) < 0.5).to(like.dtype) * 2 - 1


def fit(
    loss: Any, draw: Callable[[torch.Generator, int], Tensor], dim: int, steps: int, width: int
) -> Prior:
    """A prior of points (B, dim) trained for `steps` of AdamW; averaged weights."""
    sde, batch = VPSDE(), 256
    torch.manual_seed(0)
    network = PointScore(dim, sde, width)
    ema = EMA(network, 0.999)
    prior = Prior(network, sde, output="eps", event_shape=(dim,), t_min=T_MIN)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.0)
    rng, noise = torch.Generator().manual_seed(1), Draws(2)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 100) * math.cos(math.pi / 2 * step / steps)
        loss(prior, draw(rng, batch), noise).mean().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.update(network, step)
    return Prior(ema.network, sde, output="eps", event_shape=(dim,), t_min=T_MIN)


def score_errors(learnt: Prior, truth: Prior, x0: Tensor, ratios: tuple[float, ...]) -> list[float]:
    """E |s - grad log p_t|^2 / E |grad log p_t|^2 at noise-to-signal levels, on points of p_t."""
    errors = []
    for number, ratio in enumerate(ratios):
        t = truth.sde.time(ratio)
        rng = torch.Generator().manual_seed(100 + number)
        z = torch.randn(x0.shape, generator=rng, dtype=x0.dtype)
        xt = truth.sde.alpha(t) * x0 + truth.sde.sigma(t) * z
        right = truth.score(xt, t)
        with torch.no_grad():
            wrong = learnt.score(xt.float(), t) - right
        errors.append((wrong.square().sum() / right.square().sum()).item())
    return errors


def points(scale: float) -> list[str]:
    sde = VPSDE()
    means = torch.tensor([[1.0, 0.5], [-1.0, 0.2], [0.2, -1.0]], dtype=torch.float64)
    covs = torch.stack([s * torch.eye(2, dtype=torch.float64) for s in (0.02, 0.05, 0.1)])
    truth = GaussianMixturePrior(torch.tensor([0.5, 0.3, 0.2]).double(), means, covs, sde)
    draw = mixture_draw(torch.tensor([0.5, 0.3, 0.2]), means, covs)
    held_out = draw(torch.Generator().manual_seed(77), 2000).double()
    exact = -truth.log_prob(held_out, sde.time(sde.ratio(T_MIN))).mean() / (2 * math.log(2))
    ratios, lines = (0.05, 0.2, 0.5, 1.0, 4.0), []
    head = " | ".join(f"error at {ratio}" for ratio in ratios)
    lines += [f"| objective | {head} | bits/dim | excess |", "|---|" + "---|" * (len(ratios) + 2)]
    for name, loss in OBJECTIVES.items():
        prior = fit(loss, draw, 2, round(4000 * scale), 128)
        errors = score_errors(prior, truth, held_out, ratios)
        bits = -log_likelihood(held_out[:1000].float(), prior, rtol=1e-4, atol=1e-4).mean()
        bits = bits.item() / (2 * math.log(2))
        reference = -truth.log_prob(held_out[:1000], T_MIN).mean().item() / (2 * math.log(2))
        shown = " | ".join(f"{error:.4f}" for error in errors)
        lines.append(f"| {name} | {shown} | {bits:.4f} | {bits - reference:+.4f} |")
    lines.append(
        f"\nTrue entropy at t_min: {exact:.4f} bits/dim (2000 points). Errors are relative mean "
        "squares; excess is the held-out cross-entropy less the truth's on the same 1000 points."
    )
    return lines


def mixture_draw(weights: Tensor, means: Tensor, covs: Tensor):
    """draw(rng, n): n points of a Gaussian mixture, float32."""
    roots = torch.linalg.cholesky(covs).float()

    def draw(rng: torch.Generator, count: int) -> Tensor:
        which = torch.multinomial(weights.float(), count, replacement=True, generator=rng)
        z = torch.randn(count, means.shape[1], generator=rng)
        return means.float()[which] + torch.einsum("nij,nj->ni", roots[which], z)

    return draw


def digits(scale: float) -> list[str]:
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.from_numpy(found.data / 16).double()
    sde, u = VPSDE(), 2 * images - 1
    labels = torch.from_numpy(found.target)
    weights = torch.bincount(labels).double() / len(labels)
    means = torch.stack([u[labels == k].mean(0) for k in range(10)])
    eye = 0.01 * torch.eye(64, dtype=torch.float64)
    covs = torch.stack([torch.cov(u[labels == k].T) + eye for k in range(10)])
    truth = GaussianMixturePrior(weights, means, covs, sde)
    draw = mixture_draw(weights, means, covs)
    points_ = draw(torch.Generator().manual_seed(7), 1000).double()
    ratios = (0.1, 0.3, 1.0, 3.0)
    learnt = fit(OBJECTIVES["sigma^2, t uniform"], draw, 64, round(6000 * scale), 512)
    errors = score_errors(learnt, truth, points_, ratios)
    lines = ["Relative squared error of the score learnt from samples of the mixture fitted to the "
             "digits (64 dimensions, 10 full covariances): "
             + ", ".join(f"{e:.4f} at sigma/alpha {r}" for e, r in zip(errors, ratios, strict=True))
             + ".", "", "| objective (real digits) | held-out bits/dim |", "|---|---|"]  # fmt: skip
    held = torch.arange(len(u)) % 6 == 0
    for name in ("sigma^2, t uniform", "g^2 (likelihood), importance-sampled t"):
        prior = fit(OBJECTIVES[name], digit_draw(u[~held].float()), 64, round(6000 * scale), 512)
        prior = Prior(prior.network, sde, output="eps", range=(0.5, 0.5), t_min=T_MIN)
        bits = bits_per_dim(
            images[held].float()[:100], prior, 17, rtol=1e-3, atol=1e-3, trace="hutchinson",
            probes=8,
        )  # fmt: skip
        error = bits.std().item() / math.sqrt(len(bits))
        lines.append(f"| {name} | {bits.mean().item():.3f} +- {error:.3f} |")
    lines.append("\nChance is log2 17 = 4.087; 100 held-out digits, 17 levels, one dequantization.")
    return lines


def digit_draw(u: Tensor):
    """draw(rng, n): training digits, uniformly dequantized over their bin (1/8 wide in u)."""

    def draw(rng: torch.Generator, count: int) -> Tensor:
        rows = torch.randint(len(u), (count,), generator=rng)
        return u[rows] + (torch.rand(count, 64, generator=rng) - 0.5) / 8

    return draw


def memory(scale: float) -> list[str]:
    """Resident size while a prior trains on PNGs, each read from its file."""
    from skimage.io import imsave

    from inverse_score.training import train

    steps, seen = round(1000 * scale), {}

    def note(step: int, loss: float) -> None:
        status = Path("/proc/self/status").read_text()
        seen[step] = int(status.split("VmRSS:")[1].split()[0]) / 1024

    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        for number in range(200):
            picture = rng.integers(0, 255, (40, 40), dtype=np.uint8)
            imsave(Path(folder) / f"{number:03d}.png", picture, check_contrast=False)
        every = max(1, steps // 10)
        train(
            {
                "out": f"{folder}/run",
                "data": {"path": folder, "crop": [32, 32]},
                "network": {"name": "unet", "widths": [8, 16], "blocks": 1},
                "train": {"steps": steps, "batch_size": 4, "log_every": every,
                          "evaluate_every": 0, "measure": False},
            },
            callback=note,
        )  # fmt: skip
    trail = ", ".join(f"{step}: {size:.0f}" for step, size in seen.items())
    sizes = list(seen.values())
    return [f"Resident MiB by step: {trail}. Growth from the first tenth to the end: "
            f"{sizes[-1] - sizes[0]:+.1f} MiB."]  # fmt: skip


def speed(scale: float) -> list[str]:
    size, batch = 96, 4
    lines = [
        f"{size}x{size}, 1 channel, batch {batch}, {torch.get_num_threads()} thread; images a "
        "second of processor time, median of the repeats (quartiles).", "",
        "| network | parameters | mode | training step | inference |", "|---|---|---|---|---|",
    ]  # fmt: skip
    x = torch.randn(batch, 1, size, size, generator=torch.Generator().manual_seed(0))
    contenders = {
        "inverse_score UNet": ours, "diffusers UNet2DModel": from_diffusers,
        "denoising-diffusion-pytorch Unet": from_lucidrains,
    }  # fmt: skip
    ready = []
    for name, build in contenders.items():
        try:
            network, call = build()
        except Exception as error:
            # A peer that is not installed, or not for this Python, is named in its place.
            lines.append(f"| {name} | not importable ({type(error).__name__}) | | | |")
            continue
        count = sum(p.numel() for p in network.parameters())
        for mode in ("float32", "bfloat16, channels-last"):
            ready.append((name, count, mode, network, call))
    for name, count, mode, network, call in ready:
        train_rate, test_rate = throughput(network, call, x, mode, max(2, round(7 * scale)))
        lines.append(f"| {name} | {count / 1e6:.2f} M | {mode} | {train_rate} | {test_rate} |")
        print(lines[-1], flush=True)
    return lines


def ours():
    from inverse_score.networks import build_network

    network = build_network("unet", channels=1, widths=[64, 96, 128], blocks=2)
    prior = Prior(network, KarrasSDE(80.0), output="x0")
    return network, lambda x, t: prior.network(x, t)


def from_diffusers():
    from diffusers import UNet2DModel

    network = UNet2DModel(
        sample_size=96, in_channels=1, out_channels=1, layers_per_block=1, norm_num_groups=8,
        block_out_channels=(32, 64, 104), down_block_types=("DownBlock2D",) * 3,
        up_block_types=("UpBlock2D",) * 3,
    )  # fmt: skip
    return network, lambda x, t: network(x, t).sample


def from_lucidrains():
    from denoising_diffusion_pytorch import Unet

    network = Unet(dim=32, dim_mults=(1, 2, 3), channels=1)
    return network, lambda x, t: network(x, t)


def throughput(network: nn.Module, call: Any, x: Tensor, mode: str, repeats: int):
    """(training, inference) images a second as "median (quartiles)"."""
    quick = mode != "float32"
    layout = torch.channels_last if quick else torch.contiguous_format
    network.to(memory_format=layout)  # type: ignore[call-overload]
    x, t = x.contiguous(memory_format=layout), torch.full((len(x),), 0.5)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=quick):
            loss = (call(x, t).float() - x).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    @torch.no_grad()
    def denoise() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=quick):
            call(x, t)

    return tuple(_rate(run, len(x), repeats) for run in (step, denoise))


def _rate(run: Callable[[], None], images: int, repeats: int) -> str:
    run()
    rates = []
    for _ in range(repeats):
        # Processor time, because one thread's is the same beside a neighbour's load.
        began = time.process_time()
        run()
        rates.append(images / (time.process_time() - began))
    low, middle, high = statistics.quantiles(rates, n=4)
    return f"{middle:.1f} ({low:.1f}-{high:.1f})"


SECTIONS = {"points": points, "digits": digits, "memory": memory, "speed": speed}
TITLES = {
    "points": "2-D mixture", "digits": "8x8 digits", "memory": "Memory over 1000 batches",
    "speed": "Throughput",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, by commas")
    parser.add_argument("--scale", type=float, default=1.0, help="of all numbers of steps")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.only.split(","):
        lines = SECTIONS[name](arguments.scale)
        print("\n".join([f"## {TITLES[name]}", "", *lines, ""]), flush=True)
        keep(name, lines)


def keep(name: str, lines: list[str]) -> None:
    """Put one section among those of earlier runs, and write results/training.md anew."""
    path = RESULTS / "training.md"
    heads = {f"## {title}": key for key, title in TITLES.items()}
    kept: dict[str, list[str]] = {}
    current: list[str] = []
    for line in path.read_text().splitlines() if path.exists() else []:
        if line in heads:
            current = kept.setdefault(heads[line], [])
        else:
            current.append(line)
    kept[name] = ["", *lines, ""]
    order = [name for name in SECTIONS if name in kept]
    body = "\n".join("\n".join([f"## {TITLES[n]}", *kept[n]]) for n in order)
    text = f"# Training\n\n`python tests/studies/training.py`, one CPU thread.\n\n{body}"
    write_text(path, text.rstrip() + "\n")


if __name__ == "__main__":
    main()
