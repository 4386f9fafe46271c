"""Colours for a grey photograph: samples agree on the grey and differ in hue.

    python examples/colorize_photo.py [--size 96] [--samples 2] [--steps 14]

Grey leaves most hues open. A prior of 64 x 64 patches knows that colours are mostly muted and
change at edges; that the cup is red it cannot know.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from panels import arguments, heat, picture, psnr, sheet
from skimage import data
from skimage.transform import resize
from torch import Tensor

import recipes
from inverse_score import Reconstruction


class Found(NamedTuple):
    photo: Tensor
    grey: Tensor
    rec: Reconstruction


def photograph(size: int) -> Tensor:
    """(3, size, size) in [0, 1]: scikit-image's cup of coffee."""
    image = resize(data.coffee()[:, 100:500], (size, size), anti_aliasing=True)
    return torch.from_numpy(image).permute(2, 0, 1).float()


def chroma(x: Tensor) -> float:
    """Root mean square distance of a colour picture (3, H, W) from its own grey."""
    return float((x - x.mean(0)).square().mean().sqrt())


def main(
    size: int = 96,
    samples: int = 2,
    steps: int = 14,
    seed: int = 0,
    prior: object = "photo-patches",
) -> Found:
    photo = photograph(size)
    grey = photo.mean(0, keepdim=True)
    rec = recipes.colorization(prior)(grey, samples, seed=seed, steps=steps)
    return Found(photo, grey, rec)


if __name__ == "__main__":
    chosen = vars(arguments(__doc__, "colorize_photo.png", size=96, samples=2, steps=14))
    out = chosen.pop("out")
    photo, grey, rec = main(**chosen)
    mean = rec.mean[0]
    print(f"grey itself     {psnr(grey.expand_as(photo), photo, 1):.1f} dB")
    print(f"one sample      {psnr(rec.samples[0, 0], photo, 1):.1f} dB")
    print(f"mean of {rec.num_samples}       {psnr(mean, photo, 1):.1f} dB")
    print(f"chroma: truth {chroma(photo):.3f}, samples {chroma(rec.samples[0, 0]):.3f}")
    print(f"grey of the samples off by {float(rec.misfit.max()):.0e}; {rec.method}")
    filled = [(f"sample {i + 1}", picture(x[0])) for i, x in enumerate(rec.samples[:2])]
    rest = [("mean", picture(mean)), ("std", heat(rec.std[0].mean(0), 0.2))]
    sheet(
        [[("truth", picture(photo)), ("grey", picture(grey)), filled[0]], [filled[1], *rest]], out
    )
