"""`inverse-score simulate`: measurements from images, in the real file formats."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .application import app

if TYPE_CHECKING:
    import numpy as np


@app.command()
def simulate(
    images: list[Path] = typer.Argument(help="Pictures, npz or npy (`image`), DICOM, NIfTI."),
    operator: str = typer.Option("mri", help="mri or ct."),
    out: Path = typer.Option(..., "--out", "-o", help="Scan file to write (.h5)."),
    acc: float = typer.Option(1.0, help="MRI: acceleration; 1 writes a complete scan."),
    coils: int = typer.Option(8, help="MRI: coils."),
    noise: float = typer.Option(0.01, help="MRI: noise std over the largest magnitude."),
    views: int = typer.Option(180, help="CT: views over 180 degrees."),
    photons: float = typer.Option(1e5, help="CT: photons a ray without an object; 0 no noise."),
    pixel: float | None = typer.Option(None, help="CT: pixel in mm, where the image has none."),
    size: int | None = typer.Option(None, help="Crop or pad images to this square first."),
    key: str | None = typer.Option(None, help="Array or series within a file."),
    seed: int = typer.Option(0, help="Seed of phase, coils and noise."),
    overwrite: bool = typer.Option(False, help="Replace an existing file."),
    json_: bool = typer.Option(False, "--json", help="One JSON object about what was written."),
) -> None:
    """Simulate a scan of images on a finer grid, with coil maps, phase and noise of its own.

    The file keeps `ground_truth` beside the measurements. Several images are its slices.
    """
    from ..errors import BadInput

    if operator not in ("mri", "ct"):
        raise ValueError(f"--operator must be mri or ct; got {operator!r}")
    if out.exists() and not overwrite:
        raise BadInput(f"{out.name} exists; --overwrite replaces it")
    if out.exists() and any(path.exists() and out.samefile(path) for path in images):
        raise BadInput(f"{out.name} is one of the images; choose another name")
    volume, pixel_mm = read_images(images, key, size)
    if operator == "mri":
        facts = write_mri(volume, out, acc, coils, noise, seed)
    else:
        facts = write_ct(volume, out, views, photons, pixel or pixel_mm, seed)
    if json_:
        print(json.dumps(facts))
    else:
        print(f"{out}: {facts['what']}")


def write_mri(
    volume: np.ndarray, out: Path, acc: float, coils: int, noise: float, seed: int
) -> dict[str, Any]:
    """Simulated multi-coil k-space of magnitudes (slices, H, W) as a fastMRI file."""
    import numpy as np
    import torch

    from recipes.simulate import simulate_mri

    from ..errors import BadInput
    from ..io.formats.fastmri import write_fastmri

    if volume.min() < 0:
        raise BadInput(f"MRI images are magnitudes, none below 0; got {volume.min():.4g}")
    if acc < 1:
        raise ValueError(f"--acc must be at least 1; got {acc:g}")
    image = torch.from_numpy(volume / max(float(volume.max()), 1e-30))
    scan = simulate_mri(image, acceleration=acc, coils=coils, noise_level=noise, seed=seed)
    kspace = scan.kspace.numpy()
    references = {"ground_truth": scan.ground_truth.numpy()}
    if acc == 1:
        coil_images = np.fft.ifft2(np.fft.ifftshift(kspace, axes=(-2, -1)), norm="ortho")
        magnitude = np.abs(np.fft.fftshift(coil_images, axes=(-2, -1)))
        references["reconstruction_rss"] = np.sqrt((magnitude**2).sum(1))
    write_fastmri(
        out,
        kspace,
        references=references,
        mask=None if acc == 1 else scan.mask.reshape(-1).numpy(),
        attributes={
            "simulated": f"simulated from images: {coils} coils, noise {noise:g}, seed {seed}",
            **({} if acc == 1 else {"acceleration": float(acc)}),
        },
    )
    return {"what": f"simulated k-space (slices, coils, H, W) = {kspace.shape}", "out": out.name,
            "shape": list(kspace.shape), "noise_std": scan.noise_std}  # fmt: skip


def write_ct(
    volume: np.ndarray, out: Path, views: int, photons: float, pixel: float | None, seed: int
) -> dict[str, Any]:
    """Simulated parallel-beam counts of images in HU (slices, H, W) as a sinogram file."""
    import numpy as np
    import torch

    from operators.ct import WATER
    from recipes.simulate import simulate_ct

    from ..errors import BadInput
    from ..io.formats.sinogram import write_sinogram

    if pixel is None:
        raise BadInput("the image does not say how large a pixel is: give --pixel, in mm")
    if volume.min() >= 0 and volume.max() <= 1:
        raise BadInput("CT images are in HU; these are pictures with values from 0 to 1")
    if views < 1 or photons < 0:
        raise ValueError(f"--views and --photons must be positive; got {views}, {photons:g}")
    angles = torch.arange(views, dtype=torch.float64) * math.pi / views
    I0 = photons or None
    scan = simulate_ct(
        torch.from_numpy(volume), angles, pixel_size=pixel, unit="hu", I0=I0, seed=seed
    )
    lines = scan.sinogram.numpy()
    counts = lines if I0 is None else np.rint(I0 * np.exp(-lines))
    geometry = {
        "type": "parallel",
        "detector_spacing_mm": pixel,
        "pixel_mm": pixel,
        "image_shape": list(volume.shape[1:]),
        "value": "line_integral" if I0 is None else "counts",
        "mu_water_per_mm": float(WATER),
        **({} if I0 is None else {"I0": I0}),
    }
    truth = 1000 * (scan.ground_truth.numpy() / WATER - 1)
    write_sinogram(
        out,
        counts,
        angles.numpy(),
        geometry,
        references={"ground_truth": truth},
        attributes={"simulated": f"simulated from images: {photons:g} photons, seed {seed}"},
    )
    return {"what": f"simulated sinogram (slices, angles, detectors) = {counts.shape}",
            "out": out.name, "shape": list(counts.shape)}  # fmt: skip


def read_images(
    paths: list[Path], key: str | None, size: int | None
) -> tuple[np.ndarray, float | None]:
    """((slices, H, W) float32, pixel in mm or None) of images that agree in size."""
    import numpy as np

    from ..errors import BadInput

    slices, pixel = [], None
    for path in paths:
        volume, found = _read(path, key)
        pixel = pixel or found
        slices += [fitted(image, size) for image in volume]
    shapes = {image.shape for image in slices}
    if len(shapes) != 1:
        raise BadInput(f"images must agree in size, or be cropped by --size; got {sorted(shapes)}")
    stack = np.stack(slices).astype(np.float32)
    if not np.isfinite(stack).all():
        raise BadInput("the images hold NaN or infinite values")
    return stack, pixel


def _read(path: Path, key: str | None) -> tuple[np.ndarray, float | None]:
    import numpy as np

    from ..io.formats.npy import npz_array
    from ..io.guard.sniff import sniff
    from ..io.reading import read_scan

    kind = sniff(path)
    if kind == "picture":
        return _picture(path), None
    if kind == "npz":
        volume = npz_array(path, key or "image")
        return volume.reshape(-1, *volume.shape[-2:]), _pixel_of(path)
    scan = read_scan(path, key=key, kind="image")
    pixel = None if scan.affine is None else float(np.linalg.norm(scan.affine[:3, 0]))
    return np.stack([np.abs(scan[k]) if np.iscomplexobj(scan[k]) else scan[k]
                     for k in range(len(scan))]), pixel  # fmt: skip


def _pixel_of(path: Path) -> float | None:
    from ..errors import BadInput
    from ..io.formats.npy import npz_array

    try:
        return float(npz_array(path, "pixel_mm"))
    except BadInput:
        return None


def _picture(path: Path) -> np.ndarray:
    """(1, H, W) in [0, 1]: the mean of a picture's colours, transparency left out."""
    import numpy as np
    from skimage import io

    from ..io import guard

    with guard.reading(path.name):
        pixels = np.asarray(io.imread(path))
    top = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
    pixels = pixels.astype(np.float32) / top
    return (pixels[..., :3].mean(-1) if pixels.ndim == 3 else pixels)[None]


def fitted(image: np.ndarray, size: int | None) -> np.ndarray:
    """The central size x size of an image, padded with its least value where it is smaller."""
    import numpy as np

    if size is None:
        return image
    out = np.full((size, size), image.min(), dtype=image.dtype)
    cut, put = zip(*(_centred(n, size) for n in image.shape), strict=True)
    out[put] = image[cut]
    return out


def _centred(have: int, want: int) -> tuple[slice, slice]:
    """Where the centre of an axis comes from, and where it goes."""
    count = min(have, want)
    return (
        slice((have - count) // 2, (have - count) // 2 + count),
        slice((want - count) // 2, (want - count) // 2 + count),
    )
