"""An operator of your own: the mosaic of a camera's sensor, one colour at each pixel.

    python examples/your_own_operator.py [--size 64] [--samples 2] [--steps 14]

Written twice: as a class with its adjoint, and as a function whose adjoint automatic
differentiation finds. `check_adjoint` tests either; a wrong adjoint would give wrong samples in
silence.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from panels import arguments, heat, picture, psnr, sheet
from skimage import data
from skimage.transform import resize
from torch import Tensor

from inverse_score import Reconstruction, solve
from operators import LinearOperator, check_adjoint

NOISE = 0.02


def mosaic(size: int) -> Tensor:
    """(3, size, size): 1 where Bayer's filter lets this colour through."""
    row, column = torch.arange(size)[:, None] % 2, torch.arange(size)[None] % 2
    green = (row + column) % 2 == 0
    return torch.stack([(row == 0) & ~green, green, (row == 1) & ~green]).float()


class Bayer(LinearOperator):
    """y = sum_c M_c x_c, (3, H, W) -> (1, H, W); its adjoint is x_c = M_c y."""

    def __init__(self, size: int):
        super().__init__((3, size, size), (1, size, size))
        self.filter = mosaic(size)

    def forward(self, x: Tensor) -> Tensor:
        return (self.filter.to(x) * x).sum(1, keepdim=True)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.filter.to(y) * y


def from_function(size: int) -> LinearOperator:
    colours = mosaic(size)
    return LinearOperator.from_function(
        lambda x: (colours.to(x) * x).sum(1, keepdim=True), (3, size, size)
    )


class Found(NamedTuple):
    photo: Tensor
    y: Tensor
    gaps: dict[str, float]
    rec: Reconstruction


def main(
    size: int = 64,
    samples: int = 2,
    steps: int = 14,
    seed: int = 0,
    prior: object = "photo-patches",
) -> Found:
    image = resize(data.coffee()[:, 100:500], (size, size), anti_aliasing=True)
    photo = torch.from_numpy(image).permute(2, 0, 1).float()
    A, again = Bayer(size), from_function(size)
    gaps = {"class": check_adjoint(A), "function": check_adjoint(again)}
    noise = torch.randn(1, 1, size, size, generator=torch.Generator().manual_seed(seed))
    y = A(photo[None]) + NOISE * noise
    rec = solve(y, A, prior, noise_std=NOISE, num_samples=samples, steps=steps, seed=seed)
    return Found(photo, y, gaps, rec)


if __name__ == "__main__":
    chosen = vars(arguments(__doc__, "your_own_operator.png", size=64, samples=2, steps=14))
    out = chosen.pop("out")
    photo, y, gaps, rec = main(**chosen)
    for name, gap in gaps.items():
        print(f"{name}: gap between adjoint and transpose {gap:.0e}")
    best = psnr(rec.mean[0], photo, 1)
    print(f"mean of {rec.num_samples}: {best:.1f} dB, misfit {rec.misfit.mean():.2f} (1 is right)")
    seen = picture(mosaic(photo.shape[-1]) * y[0])
    row = [("truth", picture(photo)), ("mosaic", seen)]
    row += [(f"mean, {best:.1f} dB", picture(rec.mean[0]))]
    sheet([[*row, ("std", heat(rec.std[0].mean(0), 0.1))]], out, zoom=2)
