"""What the examples on images and scans share: arguments, scores, and a sheet of titled panels."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from inverse_score import Prior, load_prior
from inverse_score.io.pictures import colour, to_bytes
from inverse_score.networks.precision import InBfloat16, has_quick_bfloat16

HERE = Path(__file__).parent
TITLE = 15


def arguments(description: str | None, picture: str, **defaults: int) -> argparse.Namespace:
    """--NAME for each default, --seed, and --out, the picture's path."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "pictures" / picture)
    return parser.parse_args()


def quick(prior: str | Prior) -> Prior:
    """A shipped prior by name, in bfloat16 where the processor has it, as `reconstruct` runs it;
    a Prior as it is."""
    if isinstance(prior, Prior):
        return prior
    loaded = load_prior(prior)
    if has_quick_bfloat16("cpu"):
        loaded.network = InBfloat16(loaded.network)
    return loaded


def psnr(x: Tensor, truth: Tensor, peak: float) -> float:
    """10 log10(peak^2 / mean squared error), in dB."""
    return 10 * float(torch.log10(peak**2 / (x - truth).double().square().mean()))


def grey(image: Tensor, low: float, high: float) -> np.ndarray:
    """(H, W) as (H, W, 3) uint8: low is black, high is white."""
    return np.repeat(to_bytes(image.numpy(), low, high)[..., None], 3, axis=-1)


def heat(image: Tensor, high: float) -> np.ndarray:
    """(H, W) from 0 to high through a dark-to-bright map."""
    return colour(to_bytes(image.numpy(), 0.0, high))


def picture(image: Tensor) -> np.ndarray:
    """(1 or 3, H, W) in [0, 1] as (H, W, 3) uint8."""
    values = image.clamp(0, 1).mul(255).round().to(torch.uint8)
    return values.expand(3, -1, -1).permute(1, 2, 0).numpy()


def sheet(
    rows: Sequence[Sequence[tuple[str, np.ndarray]]], path: Path, *, zoom: int = 1, gap: int = 4
) -> None:
    """A PNG of rows of (title, (H, W, 3) uint8) panels of one size, each title above its panel."""
    H, W = (zoom * n for n in rows[0][0][1].shape[:2])
    columns = max(map(len, rows))
    size = (columns * (W + gap) - gap, len(rows) * (H + TITLE + gap) - gap)
    canvas = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(11)
    for r, row in enumerate(rows):
        for c, (title, pixels) in enumerate(row):
            left, top = c * (W + gap), r * (H + TITLE + gap)
            pen.text((left + 1, top + 1), title, fill="black", font=font)
            panel = Image.fromarray(pixels).resize((W, H), Image.Resampling.NEAREST)
            canvas.paste(panel, (left, top + TITLE))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Noise does not compress: large sheets keep 256 colours.
    small = canvas.width * canvas.height < 150_000
    canvas = canvas if small else canvas.quantize(256, dither=Image.Dither.NONE)
    canvas.save(path, optimize=True)
    print(path)
