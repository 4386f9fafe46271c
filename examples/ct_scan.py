"""CT from 30 views: posterior samples in Hounsfield units beside filtered back-projection and TV.

    python examples/ct_scan.py [--size 128] [--views 30] [--samples 8] [--steps 12]

A fan-beam scan of 10^5 photons a ray, simulated on a finer grid from a chest that the shipped
prior was not trained on.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from panels import HERE, arguments, grey, heat, psnr, quick, sheet
from skimage.transform import resize
from torch import Tensor

import recipes
from inverse_score import Reconstruction
from operators import to_hounsfield
from recipes.simulate import simulate_ct

# Air, and the chest's fat to soft tissue: the range that PSNR refers to, and the window shown.
RANGE, WINDOW = 2000.0, (-900.0, 300.0)


class Found(NamedTuple):
    truth: Tensor
    sinogram: Tensor
    images: dict[str, Tensor]
    rec: Reconstruction
    scores: dict[str, float]


def chest(size: int) -> tuple[Tensor, float]:
    """(HU (size, size), pixel size in mm)."""
    scan = np.load(HERE / "data" / "chest-ct.npz")
    image = scan["image"].astype(np.float32)
    small = resize(image, (size, size), anti_aliasing=True, preserve_range=True)
    return torch.from_numpy(small), float(scan["pixel_mm"]) * len(image) / size


def main(
    size: int = 128,
    views: int = 30,
    samples: int = 8,
    steps: int = 12,
    seed: int = 0,
    prior: object = "body-ct",
) -> Found:
    image, pixel = chest(size)
    fan = {"geometry": "fan-flat", "source_distance": 600.0}
    angles = torch.arange(views, dtype=torch.float64) * (2 * math.pi / views)
    scan = simulate_ct(image, angles, pixel_size=pixel, unit="hu", I0=1e5, seed=seed, **fan)
    recipe = recipes.ct(quick(prior), scan.operator, noise_std=scan.noise_std[:, None])
    problem = recipe.prepare(scan.sinogram[:, None])
    rec = problem.solve(recipe.prior, num_samples=samples, steps=steps, seed=seed)
    tv = problem.solve(recipe.prior, method="tv", iterations=40)
    truth = to_hounsfield(scan.ground_truth[0])
    images = {
        "FBP": problem.first_look[0, 0],
        "TV": tv.mean[0, 0],
        "one sample": rec.samples[0, 0, 0],
        f"mean of {samples}": rec.mean[0, 0],
    }
    scores = {k: psnr(x, truth, RANGE) for k, x in images.items()}
    return Found(truth, scan.sinogram[0], images, rec, scores)


def stretched(image: Tensor, shape: tuple[int, int]) -> Tensor:
    """image (h, w) as a panel of this shape, pixels repeated."""
    return torch.nn.functional.interpolate(image[None, None], shape, mode="nearest")[0, 0]


if __name__ == "__main__":
    chosen = vars(arguments(__doc__, "ct_scan.png", size=128, views=30, samples=8, steps=12))
    out = chosen.pop("out")
    truth, sinogram, images, rec, scores = main(**chosen)
    for name, score in scores.items():
        print(f"{name:12s} {score:.1f} dB, RMS {RANGE / 10 ** (score / 20):.0f} HU")
    # Above 1 where the pixel grid's error exceeds the noise.
    print(f"misfit {rec.misfit.mean():.2f}, {rec.nfe} network calls a sample")
    std = rec.std[0, 0]
    # Errors and std share one window, so that they can be compared.
    top = 3 * float(std.square().mean().sqrt())
    named = [(f"{k}, {scores[k]:.1f} dB", grey(x, *WINDOW)) for k, x in images.items()]
    below = [(f"error of {k}", heat((x - truth).abs(), top)) for k, x in images.items()]
    below[2] = ("std, same scale", heat(std, top))
    measured = ("sinogram", grey(stretched(sinogram, truth.shape), 0, float(sinogram.max())))
    sheet([[("truth", grey(truth, *WINDOW)), *named], [measured, *below]], out, zoom=2)
