"""Small scans with a known truth as files: an ellipse seen by smooth coils, and its sinogram.

k_c = F(s_c x) + n with sum_c |s_c|^2 = 1, F the centred orthonormal transform. Readers of other
formats are tested with `formats` (MRD, DICOM) and `twix`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from operators import Radon
from operators.fourier import fft2c, ifft2c

from ..io.formats.bart import write_bart
from ..io.formats.fastmri import write_fastmri
from ..io.formats.sinogram import write_sinogram
from .formats import mrd_header, mrd_lines, write_mrd

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


def kspace(
    slices: int = 2,
    coils: int = 4,
    shape: tuple[int, int] = TINY,
    noise: float = 0.01,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
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


def fastmri_file(
    path: Path, *, mask: np.ndarray | None = None, truth: bool = True, **options: Any
) -> Path:
    """A multi-coil fastMRI file of `kspace`'s options; with a mask, an undersampled one."""
    k, images = kspace(**options)
    references = {"reconstruction_rss": rss(k)}
    if truth:
        references["ground_truth"] = images
    write_fastmri(path, k if mask is None else k * mask, references=references, mask=mask)
    return path


def bart_file(path: Path, **options: Any) -> Path:
    """path.cfl and path.hdr of `kspace`'s options."""
    write_bart(path, kspace(**options)[0], ("SLICE", "COIL", "READ", "PHS1"))
    return path.with_name(path.name + ".cfl")


def mrd_file(path: Path, slices: int = 2, coils: int = 4, shape: tuple[int, int] = TINY) -> Path:
    """An ISMRMRD file without noise, its readout (H) twofold oversampled, 1 mm pixels."""
    truth = ellipse(shape) * (1 + 0.1 * np.arange(slices))[:, None, None]
    (height, width), wide = shape, 2 * shape[0]
    header = mrd_header(
        (wide, width, 1), (height, width, 1), (wide, width, 5), (height, width, 5), slices
    )
    return write_mrd(path, mrd_lines(truth[:, None] * coil_maps(coils, shape), wide), header)


def sinogram_file(path: Path, *, size: int = 24, angles: int = 30, slices: int = 2) -> Path:
    """Parallel-beam sinograms of ellipses, with the images as "ground_truth"."""
    truth = ellipse((size, size)) * (1 + 0.1 * np.arange(slices))[:, None, None]
    turn = np.arange(angles) * np.pi / angles
    lines = Radon(size, torch.from_numpy(turn))(torch.from_numpy(truth)[:, None]).numpy()[:, 0]
    geometry = {"type": "parallel", "image_shape": [size, size]}
    write_sinogram(path, lines, turn, geometry, references={"ground_truth": truth})
    return path
