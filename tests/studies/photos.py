"""Inpainting and colorization of held-out photographs: methods at one budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inverse_score.metrics import psnr, ssim
from inverse_score.prior import Prior
from inverse_score.solver import Reconstruction
from recipes.colorization import colorization
from recipes.inpainting import inpainting

# What exact data are given as to methods that need noise: half a step of 8 bits.
SMALL = 0.5 / 255
# Forward-equivalents (nfe + 2 vjps) of one step, and the method.
ROWS: dict[str, tuple[int, dict[str, Any]]] = {
    "replacement (Song 2021)": (2, {"paper": True}),
    "DPS (Chung 2023)": (3, {"method": "dps", "preset": "paper", "noise_std": SMALL}),
    "recommended": (1, {}),
}
HEADER = [
    "problem", "method", "fwd-eq.", "PSNR mean", "SSIM mean", "PSNR sample", "SSIM sample",
    "spread", "chroma", "off the data", "s",
]  # fmt: skip


def photographs(size: int, count: int) -> list[Tensor]:
    """The first `count` squares (3, size, size) in [0, 1], two of each of scikit-image's astronaut,
    cat, cup and rocket, none of which the prior saw; pictures shrunk to 2.5 times the square."""
    from skimage import data
    from skimage.transform import resize

    squares = []
    for place in ((0.3, 0.25), (0.6, 0.65)):
        for name in ("astronaut", "chelsea", "coffee", "rocket"):
            picture = getattr(data, name)()
            scale = 2.5 * size / min(picture.shape[:2])
            shape = [round(scale * n) for n in picture.shape[:2]]
            small = resize(picture, shape, anti_aliasing=True)
            row, column = (int(p * (n - size)) for p, n in zip(place, shape, strict=True))
            square = small[row : row + size, column : column + size]
            squares.append(torch.from_numpy(np.moveaxis(square, -1, 0).copy()).float())
    return squares[:count]


def problems(prior: Prior, size: int) -> dict[str, tuple[Callable[..., Any], Callable, Tensor]]:
    """name -> (recipe(**options), measure(photos), what is open: 1 where the spread counts)."""
    draw = torch.Generator().manual_seed(0)
    random = (torch.rand(size, size, generator=draw) < 0.3).float()
    box, side = torch.ones(size, size), size // 4
    box[size // 3 : size // 3 + side, size // 3 : size // 3 + side] = 0
    found: dict[str, Any] = {}
    for name, mask in (("70 % missing", random), ("a box missing", box)):
        found[name] = (
            lambda mask=mask, **options: inpainting(prior, mask, **options),
            lambda photos, mask=mask: mask * photos,
            1 - mask,
        )
    found["colours"] = (
        lambda **options: colorization(prior, **options),
        lambda photos: photos.mean(1, keepdim=True),
        torch.ones(size, size),
    )
    return found


def table(prior: Prior, *, size: int, count: int, samples: int, budget: int) -> list[list[str]]:
    """HEADER and one line a problem and method, means over the photographs."""
    photos = torch.stack(photographs(size, count))
    lines = [HEADER]
    for problem, (recipe, measure, unknown) in problems(prior, size).items():
        y = measure(photos)
        for name, (cost, options) in ROWS.items():
            # One call more than steps: the last denoising.
            rec = recipe(**options)(y, samples, steps=max(2, budget // cost - 1))
            off = [measure(x) - y for x in rec.samples]
            off_rms = float(torch.stack(off).square().mean().sqrt())
            spent = f"{rec.nfe + 2 * rec.vjps}"
            lines.append([problem, name, spent, *numbers(rec, photos, unknown), f"{off_rms:.0e}"])
            lines[-1].append(f"{rec.seconds:.0f}")
    return lines


def numbers(rec: Reconstruction, photos: Tensor, unknown: Tensor) -> list[str]:
    """PSNR and SSIM of the mean and of a sample; spread: RMS std of the samples where `unknown`;
    chroma: RMS distance of a sample's colours from its grey, over the truth's."""
    ones = [quality(x, photos) for x in rec.samples]
    mean, one = quality(rec.mean, photos), np.mean(ones, axis=0)
    spread = (rec.std.square() * unknown).sum() / (unknown.sum() * photos.shape[0] * 3)
    colour = np.mean([chroma(x) for x in rec.samples]) / chroma(photos)
    return [
        f"{mean[0]:.2f}", f"{mean[1]:.3f}", f"{one[0]:.2f}", f"{one[1]:.3f}",
        f"{float(spread.sqrt()):.3f}", f"{colour:.2f}",
    ]  # fmt: skip


def quality(x: Tensor, photos: Tensor) -> tuple[float, float]:
    """Mean over the photographs of PSNR and SSIM (channels as slices), for data range 1."""
    pairs = [(a.numpy(), b.clamp(0, 1).numpy()) for a, b in zip(photos, x, strict=True)]
    return (
        float(np.mean([psnr(a, b, data_range=1.0) for a, b in pairs])),
        float(np.mean([ssim(a, b, data_range=1.0) for a, b in pairs])),
    )


def chroma(x: Tensor) -> float:
    """Root mean square distance of colours (B, 3, H, W) from their own grey."""
    return float((x - x.mean(1, keepdim=True)).square().mean().sqrt())
