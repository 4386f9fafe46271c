"""CT volumes from few views: slices alone and held together along z, seen in all three cuts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inverse_score.prior import Prior
from recipes import ct, volume
from recipes.benchmarks.scoring import HU_RANGE
from recipes.simulate import simulate_ct

HEADER = [
    "volume", "reconstruction", "PSNR axial", "coronal", "sagittal", "error along z (HU)", "s",
]  # fmt: skip


def chest(folder: Path) -> tuple[Tensor, float, float]:
    """(HU (12, 128, 128), pixel in mm, mean |difference| of slices) of a patient never seen; the
    difference is another patient's at the same 5 mm."""
    return (
        pooled(folder / "held_out" / "lung2.npz", (1, 4, 4))[24:36],
        4 * 0.627,
        change(pooled(folder / "train" / "lung1.npz", (1, 4, 4))),
    )


def thorax(folder: Path) -> tuple[Tensor, float, float]:
    """(HU (20, 83, 116), pixel in mm, mean |difference| of slices) at 3 mm each way; among the
    prior's training patients, as no thin-sliced one is held out. The difference is another's."""
    return (
        pooled(folder / "train" / "thorax.npz", (2, 2, 2))[40:60],
        3.0,
        change(pooled(folder / "train" / "abdomen.npz", (1, 1, 1))),
    )


VOLUMES = {"chest, 5 mm slices, held out": chest, "thorax, 3 mm, trained on": thorax}


def pooled(path: Path, size: tuple[int, int, int]) -> Tensor:
    """The file's volume in HU, blocks of so many voxels averaged."""
    with np.load(path) as file:
        volume = torch.from_numpy(file["image"].astype(np.float32)).clamp(min=-1024)
    return torch.nn.functional.avg_pool3d(volume[None], size)[0]


def change(volume: Tensor) -> float:
    """Mean |difference| of neighbouring slices (HU) where either is not air."""
    body = torch.maximum(volume[1:], volume[:-1]) > -900
    return float(volume.diff(dim=0).abs()[body].mean())


def table(
    prior: Prior, folder: Path, *, views: int, steps: int, slices: int | None = None
) -> list[list[str]]:
    """HEADER and a line a volume and reconstruction: one sample each."""
    lines = [HEADER]
    angles = torch.arange(views, dtype=torch.float64) * (2 * math.pi / views)
    fan: dict[str, Any] = {"geometry": "fan-flat", "source_distance": 600.0}
    for title, read in VOLUMES.items():
        truth, pixel, b = read(folder)
        truth = truth[:slices]
        scan = simulate_ct(truth, angles, pixel_size=pixel, unit="hu", I0=1e5, **fan)
        recipe = ct(prior, scan.operator, noise_std=scan.noise_std[:, None])
        sinogram = scan.sinogram[:, None]
        first = recipe.prepare(sinogram).first_look[:, 0]
        lines.append([title, "FBP", *cuts(first, truth), "-"])
        # A scale that holds nothing together makes the same steps without coupling.
        rows = {"slices alone": (1e9, "tv"), "TV along z": (b, "tv")}
        rows["quadratic along z"] = (b, "quadratic")
        for name, (scale, penalty) in rows.items():
            rec = volume(recipe, scale, penalty=penalty)(sinogram, 1, steps=steps)
            line = [title, name, *cuts(rec.samples[0, 0, 0], truth), f"{rec.seconds:.0f}"]
            lines.append(line)
    return lines


def cuts(x: Tensor, truth: Tensor) -> list[str]:
    """Mean PSNR (range 2000 HU) over axial, coronal and sagittal cuts, and the RMS error of the
    difference of neighbouring slices."""
    square = (x - truth).double().square()
    means = [square.mean(axes) for axes in ((1, 2), (0, 2), (0, 1))]
    found = [f"{float((10 * torch.log10(HU_RANGE**2 / m)).mean()):.2f}" for m in means]
    return [*found, f"{float((x - truth).diff(dim=0).square().mean().sqrt()):.0f}"]
