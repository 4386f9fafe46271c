"""Which denoiser learns most in equal processor time on one CPU thread?

    python tests/studies/architectures.py DATA --minutes 3

trains each variant on DATA/train of the brain prior for so many minutes of *processor* time (fair
on a shared machine), and prints held-out denoising error by noise level on fresh planes through
the training people: hyper-parameters are chosen without looking at held-out people.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inverse_score.networks.unet import UNet
from recipes.priors.heads import Heads

LEVELS = (0.01, 0.05, 0.2, 1.0, 5.0)
SIGMA_DATA = 0.35
VARIANTS: dict[str, dict[str, Any]] = {
    "unshuffled": {"widths": (64, 128, 192)},
    "unshuffled, float32": {"widths": (64, 128, 192), "precision": "float32"},
    "unshuffled, group norm": {"widths": (64, 128, 192), "norm": "group"},
    "unshuffled, attention": {"widths": (64, 128, 192), "attention": True},
    "unshuffled, wide top": {"widths": (96, 128, 160)},
    "unshuffled, four levels": {"widths": (64, 96, 128, 192)},
    "unshuffled, 4 groups": {"widths": (96, 192, 256), "groups": 4},
    "unshuffled, depthwise": {"widths": (96, 192, 256), "groups": 256},
    "unshuffled by 4": {"widths": (128, 192), "patch": 4, "blocks": 3},
    "plain": {"widths": (32, 64, 128, 192), "patch": 1},
}


def train(variant: dict[str, Any], images: Heads, minutes: float, batch: int = 8) -> tuple:
    """(network with averaged weights, images seen): Adam on the loss of Karras et al. 2022."""
    torch.manual_seed(0)
    config = {key: value for key, value in variant.items() if key != "precision"}
    network = UNet(2, sigma_data=SIGMA_DATA, **config)
    bfloat16 = variant.get("precision") != "float32"
    averaged = {key: value.clone() for key, value in network.state_dict().items()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=6e-4, betas=(0.9, 0.99), weight_decay=0)
    start, seen = time.process_time(), 0
    while (left := 1 - (time.process_time() - start) / (60 * minutes)) > 0:
        x = torch.stack([images[seen + i] for i in range(batch)])
        seen += batch
        loss = denoising_loss(network, x, bfloat16)
        optimizer.param_groups[0]["lr"] = 6e-4 * min(1.0, seen / 800) * min(1.0, left / 0.3)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        decay = min(0.995, (1 + seen / batch) / (10 + seen / batch))
        for key, value in network.state_dict().items():
            averaged[key].lerp_(value, 1 - decay)
    network.load_state_dict(averaged)
    return network, seen


def denoising_loss(network: UNet, x: Tensor, bfloat16: bool) -> Tensor:
    """|D - x|^2 / c_out(s)^2, ln s ~ N(-1.8, 1.6^2): unit weight on the network proper."""
    s = torch.exp(-1.8 + 1.6 * torch.randn(x.shape[0]))
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        x0_hat = network(x + s[:, None, None, None] * torch.randn_like(x), s)
    c_out = network.preconditioning(s[:, None, None, None])[1]
    return ((x0_hat - x) / c_out).square().mean()


@torch.no_grad()
def held_out(network: UNet, x: Tensor) -> list[float]:
    """Denoising error in dB, 10 log10 of the mean square, at LEVELS."""
    errors = []
    for s in LEVELS:
        eps = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        with torch.autocast("cpu", torch.bfloat16):
            x0_hat = network(x + s * eps, torch.full((x.shape[0],), s))
        errors.append(10 * math.log10((x0_hat - x).square().mean().item()))
    return errors


@torch.no_grad()
def milliseconds(network: UNet) -> float:
    """Of one call on a 256 x 256 image in bfloat16."""
    x, t = torch.randn(1, 2, 256, 256), torch.ones(1)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            network(x, t)
        times.append(time.perf_counter() - start)
    return 1e3 * sorted(times)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder that `prepare brain-mri` filled")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images, fresh = Heads(arguments.data / "train"), Heads(arguments.data / "train", 160, seed=1)
    x = torch.stack([fresh[i] for i in range(16)])
    print("| network | parameters, M | ms / call | images seen | "
          + " | ".join(f"{s:g}" for s in LEVELS) + " |")  # fmt: skip
    print("|---" * (4 + len(LEVELS)) + "|")
    for name in arguments.only:
        network, seen = train(VARIANTS[name], images, arguments.minutes)
        size = sum(p.numel() for p in network.parameters()) / 1e6
        errors = " | ".join(f"{error:.2f}" for error in held_out(network, x))
        print(
            f"| {name} | {size:.2f} | {milliseconds(network):.0f} | {seen} | {errors} |", flush=True
        )


if __name__ == "__main__":
    main()
