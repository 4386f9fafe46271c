"""Small scans that tests write: an ellipse seen by a few smooth coils, and its sinogram."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from inverse_score.io.fastmri import write_fastmri
from operators.fourier import fft2c, ifft2c

TINY = (24, 32)


def ellipse(shape: tuple[int, int] = TINY) -> np.ndarray:
    """(H, W): 1 in an ellipse, 0.4 in a smaller one inside, 0 in air."""
    y, x = (np.linspace(-1, 1, n) for n in shape)
    r = np.hypot(y[:, None] / 0.8, x[None] / 0.7)
    hole = np.hypot((y[:, None] - 0.2) / 0.3, x[None] / 0.25)
    return np.where(r < 1, np.where(hole < 1, 0.4, 1.0), 0.0)


def coil_maps(coils: int, shape: tuple[int, int] = TINY) -> np.ndarray:
    """(coils, H, W) smooth complex maps with sum |.|^2 = 1."""
    y, x = (np.linspace(-1, 1, n) for n in shape)
    turn = 2 * np.pi * np.arange(coils) / coils
    at = np.stack([np.cos(turn), np.sin(turn)])
    distance = (y[:, None] - at[0, :, None, None]) ** 2 + (x[None] - at[1, :, None, None]) ** 2
    maps = np.exp(
        -0.4 * distance + 0.5j * (x[None, None] * at[1, :, None, None]) + 1j * turn[:, None, None]
    )
    return (maps / np.sqrt((np.abs(maps) ** 2).sum(0)))[: coils or 1].reshape(coils, *shape)


def kspace(slices: int = 2, coils: int = 4, shape=TINY, noise: float = 0.01, seed: int = 0):
    """(k-space (slices, coils, H, W), truth (slices, H, W)) of ellipses of growing brightness."""
    rng = np.random.default_rng(seed)
    truth = ellipse(shape) * (1 + 0.1 * np.arange(slices))[:, None, None]
    images = truth[:, None] * coil_maps(coils, shape)
    clean = fft2c(torch.from_numpy(images)).numpy()
    grain = rng.standard_normal((2, *clean.shape))
    return (clean + noise * (grain[0] + 1j * grain[1])).astype(np.complex64), truth


def rss(k: np.ndarray) -> np.ndarray:
    """Root sum of squares over the coil axis (second)."""
    return np.sqrt((np.abs(ifft2c(torch.from_numpy(k)).numpy()) ** 2).sum(1))


def fastmri_file(path: Path, *, mask: np.ndarray | None = None, truth: bool = True, **options):
    """A multi-coil fastMRI file; with a mask, an undersampled one."""
    k, images = kspace(**options)
    references = {"reconstruction_rss": rss(k)}
    if truth:
        references["ground_truth"] = images
    write_fastmri(path, k if mask is None else k * mask, references=references, mask=mask)
    return path
