"""Colours for a grey photograph: samples agree on the grey and differ in hue.

    python examples/colorize_photo.py [--size 64] [--samples 4] [--steps 60]

Grey leaves most hues open. A prior of 64 x 64 patches knows that colours are mostly muted and
change at edges; that the cup is red it cannot know. The mean of several samples is muted by
nature: where hues differ it is grey.
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
    size: int = 64,
    samples: int = 4,
    steps: int = 60,
    seed: int = 0,
    prior: object = "photo-patches",
) -> Found:
    photo = photograph(size)
    grey = photo.mean(0, keepdim=True)
    rec = recipes.colorization(quick(prior))(grey, samples, seed=seed, steps=steps)
    return Found(photo, grey, rec)


if __name__ == "__main__":
    chosen = vars(arguments(__doc__, "colorize_photo.png", size=64, samples=4, steps=60))
    out = chosen.pop("out")
    photo, grey, rec = main(**chosen)
    mean = rec.mean[0]
    print(f"grey itself     {psnr(grey.expand_as(photo), photo, 1):.1f} dB")
    print(f"one sample      {psnr(rec.samples[0, 0], photo, 1):.1f} dB")
    print(f"mean of {rec.num_samples}       {psnr(mean, photo, 1):.1f} dB")
    print(f"chroma: truth {chroma(photo):.3f}, samples {chroma(rec.samples[0, 0]):.3f}")
    print(f"grey of the samples off by {float(rec.misfit.max()):.0e}; {rec.method}")
    filled = [(f"sample {i + 1}", picture(x[0])) for i, x in enumerate(rec.samples)]
    seen = [("truth", picture(photo)), ("grey", picture(grey))]
    rest = [(f"mean of {rec.num_samples}", picture(mean)), ("std", heat(rec.std[0].mean(0), 0.2))]
    sheet([[*seen, *rest], filled], out, zoom=2)
