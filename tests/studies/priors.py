"""What the shipped priors know of people they never saw.

    python tests/studies/priors.py NAME DATA [--out FOLDER]

DATA is a folder that `inverse-score prepare NAME` filled. Prints three tables: denoising of
held-out images by noise level against non-local means and total variation, both with their strength
tuned on the very images (of five); bits per dimension of held-out images, against PNG's; and how
near samples come to training images. Writes a grid of samples to FOLDER/NAME-samples.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from inverse_score import bits_per_dim, load_prior, sample
from inverse_score.prior import Prior
from inverse_score.testing.denoising import central, denoising_table, nearest
from inverse_score.training.plots import image_grid, write_png
from recipes.priors import datasets

# Steps to which held-out images are rounded for their bits, and the range; the scanner's 1 HU.
QUANTA = {
    "brain-mri": (256, (-0.5, 1.5)),
    "body-ct": (4096, (-1000.0, 3095.0)),
    "photo-patches": (256, (0.0, 1.0)),
    "digits": (256, (0.0, 1.0)),
}
SIZES = {"brain-mri": 128, "body-ct": 128, "photo-patches": 64, "digits": 28}


def memory_table(prior: Prior, name: str, data: Path, samples: Tensor, count: int) -> list[str]:
    """Distances of samples, of held-out images and of further training images to the nearest of
    `count` training images: samples nearer than training images are to each other are copies."""
    size = SIZES[name]
    train, held_out = datasets(data, size)
    library = torch.stack([train[i] for i in range(count)])
    middle = [central(held_out[k], size) for k in range(min(64, len(held_out)))]
    fresh = torch.stack([train[count + i] for i in range(64)])
    lines = ["| images | nearest: median | smallest |", "|---|---|---|"]
    rows = {
        "samples": samples,
        "held-out images": torch.stack(middle),
        "other training images": fresh,
    }
    for label, images in rows.items():
        near = nearest(images, library)
        lines.append(f"| {label} ({len(images)}) | {near.median():.3f} | {near.min():.3f} |")
    return lines


def bits_table(prior: Prior, name: str, images: Tensor, count: int = 8) -> list[str]:
    """Bits per dimension of the middles of `count` held-out images, by the prior and by PNG."""
    levels, (low, high) = QUANTA[name]
    side = min(64, *images.shape[2:])
    images = images[:: max(1, len(images) // count)][:count]
    x = torch.stack([central(image, side) for image in images]).double()
    steps = ((x - low) / (high - low) * (levels - 1)).round().clamp(0, levels - 1)
    rounded = (low + (high - low) * steps / (levels - 1)).float()
    options = {"terminal": "tweedie", "probes": 2, "rtol": 1e-4, "atol": 1e-4}
    bits = bits_per_dim(rounded, prior, levels, data_range=(low, high), **options)
    coded = torch.tensor([png_bits(image, levels) for image in steps])
    lines = ["| held-out images | step | prior, bits/dim | PNG, bits/dim |", "|---|---|---|---|"]
    spread = [f"{v.mean():.2f} +- {v.std() / len(v) ** 0.5:.2f}" for v in (bits, coded)]
    step = (high - low) / (levels - 1)
    return [*lines, f"| {len(x)} of {side} x {side} | {step:.3g} | " + " | ".join(spread) + " |"]


def png_bits(steps: Tensor, levels: int) -> float:
    """Bits per number of one image's level numbers (C, H, W), each channel a grey PNG."""
    import imageio.v3 as imageio

    kind = np.uint8 if levels <= 256 else np.uint16
    files = [imageio.imwrite("<bytes>", c.numpy().astype(kind), extension=".png") for c in steps]
    return 8 * sum(len(file) for file in files) / steps.numel()


def draw(prior: Prior, name: str, count: int, steps: int) -> Tensor:
    """`count` samples in data units."""
    size, channels = SIZES[name], prior.channels
    with torch.autocast("cpu", torch.bfloat16):
        return sample(prior, (count, channels, size, size), steps=steps, seed=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=list(SIZES))
    parser.add_argument("data", type=Path)
    parser.add_argument("--prior", help="a prior file instead of the shipped one")
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--library", type=int, default=2000)
    arguments = parser.parse_args()
    prior = load_prior(arguments.prior or arguments.name)
    _, held_out = datasets(arguments.data)
    images = [held_out[k] for k in range(len(held_out))][:200]
    images = [item[0] if isinstance(item, tuple) else item for item in images]
    held = torch.stack(images)
    print("\n".join(denoising_table(prior, held)), flush=True)
    print("\n".join(["", *bits_table(prior, arguments.name, held)]), flush=True)
    samples = draw(prior, arguments.name, arguments.samples, arguments.steps)
    print(
        "\n".join(
            ["", *memory_table(prior, arguments.name, arguments.data, samples, arguments.library)]
        )
    )
    low, high = {"body-ct": (-1000.0, 1000.0), "brain-mri": (0.0, 1.2)}.get(
        arguments.name, (0.0, 1.0)
    )
    write_png(arguments.out / f"{arguments.name}-samples.png", image_grid(samples, low, high))


if __name__ == "__main__":
    main()
