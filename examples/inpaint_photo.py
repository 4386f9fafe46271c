"""A photograph of which 70 % of the pixels, or a box, are missing: several ways to fill it in.

    python examples/inpaint_photo.py [--size 96] [--samples 2] [--steps 40]

The shipped prior saw 64 x 64 patches of other photographs: it knows edges and textures, not cats.
The box is there to show that: where little is known the samples differ.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from panels import arguments, heat, picture, psnr, quick, sheet
from skimage import data
from skimage.transform import resize
from torch import Tensor

import recipes
from inverse_score import Reconstruction


class Found(NamedTuple):
    photo: Tensor
    masks: dict[str, Tensor]
    recs: dict[str, Reconstruction]


def photograph(size: int) -> Tensor:
    """(3, size, size) in [0, 1]: scikit-image's cat Chelsea."""
    image = resize(data.chelsea()[:, 75:375], (size, size), anti_aliasing=True)
    return torch.from_numpy(image).permute(2, 0, 1).float()


def missing(size: int, seed: int) -> dict[str, Tensor]:
    """1 where the pixel is known: 30 % of them at random, and all but a box."""
    draw = torch.Generator().manual_seed(seed)
    random = (torch.rand(size, size, generator=draw) < 0.3).float()
    box, side = torch.ones(size, size), size // 5
    box[size // 4 : size // 4 + side, size // 3 : size // 3 + side] = 0
    return {"70 % missing": random, "a box missing": box}


def main(
    size: int = 96,
    samples: int = 2,
    steps: int = 40,
    seed: int = 0,
    prior: object = "photo-patches",
) -> Found:
    photo, masks = photograph(size), missing(size, seed)
    recs = {
        name: recipes.inpainting(quick(prior), mask)(photo, samples, seed=seed, steps=steps)
        for name, mask in masks.items()
    }
    return Found(photo, masks, recs)


if __name__ == "__main__":
    chosen = vars(arguments(__doc__, "inpaint_photo.png", size=96, samples=2, steps=40))
    out = chosen.pop("out")
    photo, masks, recs = main(**chosen)
    rows = []
    for name, rec in recs.items():
        one, mean = psnr(rec.samples[0, 0], photo, 1), psnr(rec.mean[0], photo, 1)
        print(f"{name}: one sample {one:.1f} dB, mean of {rec.num_samples} {mean:.1f} dB")
        print(f"  known pixels differ by {float(rec.misfit.max()):.0e}; {rec.method}")
        filled = [(f"sample {i + 1}", picture(x[0])) for i, x in enumerate(rec.samples[:2])]
        std = heat(rec.std[0].mean(0), 0.2)
        known = (name, picture(photo * masks[name]))
        rows.append([("truth", picture(photo)), known, *filled])
        rows[-1] += [(f"mean, {mean:.1f} dB", picture(rec.mean[0])), ("std", std)]
    sheet(rows, out)
