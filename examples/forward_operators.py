"""What each operator measures and what its pseudo-inverse recovers, on photographs.

    python examples/forward_operators.py [--size 128] [--out examples/pictures/operators.png]

Each column: the measurements y = A x (magnitudes on a log scale for k-space), below pinv(y), for
CT the filtered backprojection. The first column shows the two images x.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from skimage import data
from skimage.transform import resize

from operators import (
    CartesianMRI,
    CompressedSensing,
    Downsample,
    GaussianBlur,
    Grayscale,
    LinearOperator,
    Mask,
    MotionBlur,
    Radon,
    as_complex,
    birdcage_maps,
    box_mask,
    column_mask,
    grid_mask,
)


def photograph(size: int) -> torch.Tensor:
    """(1, 3, size, size) in [0, 1]: scikit-image's astronaut."""
    image = resize(data.astronaut(), (size, size), anti_aliasing=True)
    return torch.from_numpy(image).permute(2, 0, 1)[None].float()


def gray_photograph(size: int) -> torch.Tensor:
    """(1, 1, size, size) in [0, 1], 0 outside the inscribed disc: scikit-image's cameraman."""
    image = torch.from_numpy(resize(data.camera(), (size, size), anti_aliasing=True)).float()
    c = torch.linspace(-1, 1, size)
    return (image * (torch.hypot(c, c[:, None]) < 0.98))[None, None]


def cases(size: int) -> list[tuple[str, LinearOperator, torch.Tensor]]:
    """(title, operator, x)."""
    colour, gray = photograph(size), gray_photograph(size)
    shape = tuple(colour.shape[1:])
    random = torch.rand(1, size, size, generator=torch.Generator().manual_seed(0)) < 0.3
    complex_ = torch.cat([gray, torch.zeros_like(gray)], 1)
    columns = column_mask("equispaced-fraction", size, 4, 0.08).mask
    disc = grid_mask("poisson-disc", (size, size), 6, 0.06).mask
    maps = birdcage_maps(8, (size, size))
    fan = {"geometry": "fan-flat", "source_distance": 2.0 * size}
    full, sparse = np.arange(180) * np.pi / 180, np.arange(30) * np.pi / 30
    power = 1 << (size.bit_length() - 1)
    sensed = colour[..., :power, :power]
    return [
        ("box", Mask(box_mask(size, size), shape), colour),
        ("random 30 %", Mask(random, shape), colour),
        ("grayscale", Grayscale(shape), colour),
        ("Gaussian blur", GaussianBlur(shape, 1.5), colour),
        ("motion blur", MotionBlur(shape, size / 10, 0.5), colour),
        ("downsample 4, box", Downsample(shape, 4), colour),
        ("downsample 4, bicubic", Downsample(shape, 4, kernel="bicubic"), colour),
        ("Hadamard, half", CompressedSensing(sensed.shape[1:], power**2 // 2), sensed),
        ("MRI, 1 coil, 4x", CartesianMRI(columns, image_shape=(size, size)), complex_),
        ("MRI, 8 coils, 6x", CartesianMRI(disc, maps), complex_),
        ("CT, 180 views", Radon(size, full), gray),
        ("CT, 30 views", Radon(size, sparse), gray),
        ("fan beam", Radon(size, 2 * full, **fan), gray),
    ]


def measured(y: torch.Tensor) -> np.ndarray:
    """y as a picture in [0, 1]: k-space by log magnitude, vectors folded to a rectangle."""
    y = y[0]
    if y.is_complex():
        magnitude = y.abs().square().sum(0).sqrt()
        return (1 + 5000 * magnitude / magnitude.max()).log().numpy() / np.log(5001)
    if y.ndim == 2:
        width = int(np.sqrt(2 * y.shape[1]))
        y = 0.5 + y[:, : y.shape[1] // width * width].reshape(len(y), -1, width)
    elif len(y) == 1:
        y = y / y.max()
    return y.permute(1, 2, 0).clamp(0, 1).squeeze(-1).numpy()


def recovered(A: LinearOperator, y: torch.Tensor) -> np.ndarray:
    """pinv(y), or FBP where there is one, as a picture in [0, 1]."""
    # A few iterations: the multi-coil pseudo-inverse is ill-conditioned.
    x = A.forms.fbp(y) if A.forms.fbp else A.pinv(y, max_iter=30, tol=1e-3)
    x = as_complex(x).abs()[:, None] if y.is_complex() else x
    return shown(x)


def shown(x: torch.Tensor) -> np.ndarray:
    """(1, C, H, W) as a picture in [0, 1]."""
    return x[0].permute(1, 2, 0).clamp(0, 1).squeeze(-1).numpy()


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--out", type=Path, default=Path("examples/pictures/operators.png"))
    arguments = parser.parse_args()
    panels = [("x", shown(photograph(arguments.size)), shown(gray_photograph(arguments.size)))]
    for title, A, x in cases(arguments.size):
        y = A(x)
        panels.append((title, measured(y), recovered(A, y)))
    columns = len(panels) // 2
    figure, axes = plt.subplots(4, columns, figsize=(1.7 * columns, 7.4))
    for place, (title, top, bottom) in enumerate(panels):
        row, column = 2 * (place // columns), place % columns
        axes[row, column].set_title(title, fontsize=9, pad=3)
        for axis, picture in zip(axes[row : row + 2, column], (top, bottom), strict=True):
            axis.imshow(picture, cmap="gray", vmin=0, vmax=1, aspect="auto")
            axis.set_axis_off()
    for height, name in ((0.86, "y"), (0.62, "pinv y"), (0.37, "y"), (0.13, "pinv y")):
        figure.text(0.005, height, name, fontsize=10, rotation=90)
    figure.subplots_adjust(0.025, 0.005, 0.998, 0.965, 0.04, 0.14)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out, dpi=110)
    print(arguments.out)


if __name__ == "__main__":
    main()
