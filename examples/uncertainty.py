"""Is the spread of the samples right? Exactly, where the truth's law is known; roughly, on a photo.

    python examples/uncertainty.py [--problems 200] [--samples 19] [--images 3] [--size 48]

For a Gaussian prior the truth is drawn from the very law that the sampler uses, so that its rank
among the samples must be uniform. On a photograph the learnt prior is not that law: pixels are
sorted by std, and the error of the mean is compared with it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from panels import arguments, heat, picture, sheet
from skimage import data
from skimage.transform import resize
from torch import Tensor

import recipes
from inverse_score import GaussianPrior, KarrasSDE, Reconstruction, solve
from inverse_score.uncertainty import coverage, rank_uniformity, ranks
from operators import Mask

SIDE, NOISE = 8, 0.1


class Known(NamedTuple):
    p_value: float
    covered: float


def known(problems: int, samples: int, seed: int = 0, method: str = "auto", **options) -> Known:
    """Ranks and 90 % coverage for 8 x 8 Gaussian images of which the left half is seen, noisily."""
    place = torch.cartesian_prod(*[torch.arange(float(SIDE), dtype=torch.float64)] * 2)
    cov = (-torch.cdist(place, place) / 3).exp()
    prior = GaussianPrior(torch.zeros(1, SIDE, SIDE), cov, KarrasSDE(20.0))
    truth = prior.sample(problems, seed=seed, dtype=torch.float32)
    left = (torch.arange(SIDE) < SIDE // 2).float().expand(SIDE, SIDE)
    A = Mask(left, image_shape=(1, SIDE, SIDE))
    draw = torch.Generator().manual_seed(seed)
    y = A(truth + NOISE * torch.randn(truth.shape, generator=draw))
    options = {"noise_std": NOISE, "num_samples": samples, "seed": seed, **options}
    drawn = solve(y, A, prior, method=method, **options).samples
    # One number an image: pixels of one image are not independent of each other.
    hidden = [v[..., SIDE // 2 :].mean((-3, -2, -1)) for v in (drawn, truth)]
    uniform = rank_uniformity(ranks(*[v[..., None] for v in hidden]), samples)
    return Known(uniform.p_value, float(coverage(drawn, truth, 0.9).mean()))


def on_photo(
    size: int, samples: int, steps: int, seed: int = 0, prior: object = "photo-patches"
) -> tuple[Tensor, Reconstruction]:
    image = resize(data.chelsea()[:, 75:375], (size, size), anti_aliasing=True)
    photo = torch.from_numpy(image).permute(2, 0, 1).float()
    mask = (torch.rand(size, size, generator=torch.Generator().manual_seed(seed)) < 0.4).float()
    return photo, recipes.inpainting(prior, mask)(photo, samples, seed=seed, steps=steps)


def by_std(photo: Tensor, rec: Reconstruction, bins: int = 5) -> list[tuple[float, float]]:
    """(RMS std, RMS error of the mean) in each fifth of the unknown pixels, sorted by std."""
    std, error = rec.std[0].flatten(), (rec.mean[0] - photo).flatten()
    # Known pixels are exact, and their std is rounding.
    order = std.argsort()[int((std < 1e-5).sum()) :]
    pairs = (std[order], error[order])
    rms = [[float(v.square().mean().sqrt()) for v in x.chunk(bins)] for x in pairs]
    return list(zip(*rms, strict=True))


if __name__ == "__main__":
    defaults = {"problems": 200, "samples": 19, "images": 3, "size": 48, "steps": 12}
    chosen = arguments(__doc__, "uncertainty.png", **defaults)
    found = known(chosen.problems, chosen.samples, chosen.seed)
    print(f"Gaussian: ranks uniform with p = {found.p_value:.2f}, 90 % covers {found.covered:.1%}")
    photo, rec = on_photo(chosen.size, chosen.images, chosen.steps, chosen.seed)
    print("photo, fifths of the unknown pixels by std:")
    for std, error in by_std(photo, rec):
        print(f"  std {std:.3f}   error {error:.3f}")
    error = (rec.mean[0] - photo).abs().mean(0)
    row = [("truth", picture(photo)), ("mean", picture(rec.mean[0]))]
    sheet(
        [
            [
                *row,
                ("std, 0 to 0.2", heat(rec.std[0].mean(0), 0.2)),
                ("error, 0 to 0.2", heat(error, 0.2)),
            ]
        ],
        chosen.out,
        zoom=3,
    )
