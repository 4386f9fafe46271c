"""Simulated scans: from an image or a volume to measurements, a pure function of its arguments.

Physics runs on a grid twice as fine as the scan's, with its own coil maps and phase, so that no
reconstruction meets the model that made its data; the noise-free truth is kept beside them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from operators.ct import WATER, Radon, from_hounsfield
from operators.fourier import fft2c, ifft2c
from operators.linear import LinearOperator
from operators.mri.kspace import SamplingMask, column_mask
from operators.noise import add_gaussian, generator, poisson_transmission

from .arrays import array_maps

# Draw of one item's generator: noise is 0, the coils' 2.
_PHASE = 1


@dataclass(frozen=True)
class SimulatedMRI:
    """kspace (slices, coils, H, W) with noise, zeros outside the mask; clean: without noise,
    fully sampled; ground_truth (slices, H, W): noise-free magnitude on the scan's grid; image:
    the same complex; sens_maps (coils, H, W): the truth's maps at the scan's resolution, unknown
    to a reconstruction; noise_std: per real and imaginary part of k-space.
    """

    kspace: Tensor
    clean: Tensor
    mask: Tensor
    ground_truth: Tensor
    image: Tensor
    sens_maps: Tensor
    noise_std: float
    seed: int


def simulate_mri(
    image: Tensor,
    mask: Tensor | SamplingMask | None = None,
    *,
    acceleration: float = 1.0,
    coils: int = 8,
    array: str = "birdcage",
    noise_level: float = 0.01,
    phase: float = math.pi / 2,
    seed: int = 0,
    items: Sequence[int] | None = None,
) -> SimulatedMRI:
    """Multi-coil Cartesian scan of magnitudes (H, W) or (slices, H, W), or complex images.

    mask: (W,) or (H, W); default: fastMRI's equispaced-fraction columns at `acceleration` (1:
    full sampling). noise_level: noise std per part as a share of the volume's largest ground
    truth. phase: range (radians) of a smooth random phase, ignored for complex images. coils: how
    many, of an `arrays.array_maps` drawn from seed; 1 gives a uniform coil. items: names of the
    slices for the noise, default 0, 1, ...
    """
    volume = _checked_volume(image)
    items = range(len(volume)) if items is None else items
    H, W = volume.shape[-2:]
    fine = upsampled(volume, 2)
    if not fine.is_complex():
        fine = torch.polar(fine.clamp_min(0), smooth_phase((2 * H, 2 * W), phase, seed).to(fine))
    maps = array_maps(array, coils, (2 * H, 2 * W), seed).to(fine)
    sampled = _sampling(mask, W, acceleration, seed)
    # Orthonormal transforms of grids of 4 H W and H W entries differ by a factor 2.
    clean = torch.stack([_cropped(fft2c(maps * slice_), H, W) / 2 for slice_ in fine])
    truth = ifft2c(_cropped(fft2c(fine), H, W) / 2)
    std = noise_level * float(truth.abs().max())
    noisy = add_gaussian(clean, std, seed=seed, items=list(items))
    low = ifft2c(_cropped(fft2c(maps), H, W) / 2)
    return SimulatedMRI(noisy * sampled, clean, sampled, truth.abs(), truth, low, std, int(seed))


@dataclass(frozen=True)
class SimulatedCT:
    """sinogram (slices, angles, detectors): noisy line integrals without unit; clean: without
    noise; weights: inverse variances; ground_truth (slices, H, W): attenuation in 1/mm; operator:
    the Radon transform of the scan's own grid; starved: share of readings without a photon.
    """

    sinogram: Tensor
    clean: Tensor
    weights: Tensor
    ground_truth: Tensor
    operator: Radon
    starved: float
    seed: int

    @property
    def noise_std(self) -> Tensor:
        return self.weights.rsqrt()


def simulate_ct(
    image: Tensor,
    angles: Tensor | Sequence[float],
    *,
    pixel_size: float,
    unit: str = "1/mm",
    I0: float | None = 1e5,
    water: float = WATER,
    seed: int = 0,
    items: Sequence[int] | None = None,
    **geometry: Any,
) -> SimulatedCT:
    """CT scan of attenuation (H, W) or (slices, H, W), square or not, in "1/mm" or "hu".

    pixel_size: mm. geometry: further arguments of operators.Radon (detectors, geometry,
    source_distance, ...). Each reading averages the intensity of two half-width elements on the
    fine grid, then counts Poisson(I0 exp(-p)); I0 None: without noise, weights 1.
    """
    volume = _checked_volume(image)
    if volume.is_complex() or unit not in ("1/mm", "hu"):
        raise ValueError(f'CT takes real images in unit "1/mm" or "hu"; got {unit!r}')
    mu = from_hounsfield(volume, water).clamp_min(0) if unit == "hu" else volume
    if not bool((mu >= 0).all()):
        raise ValueError('attenuation in 1/mm must be >= 0; unit="hu" takes Hounsfield units')
    scan = Radon((mu.shape[-2], mu.shape[-1]), angles, pixel_size=pixel_size, **geometry)
    fine = _finer(scan)
    line = fine(upsampled(mu, 2).clamp_min(0)[:, None])[:, 0]
    pairs = line.unflatten(-1, (-1, 2))
    # The mean intensity, by its exponential form that cannot underflow.
    clean = math.log(2) - torch.logsumexp(-pairs, -1)
    items = list(range(len(mu)) if items is None else items)
    if I0 is None:
        return SimulatedCT(clean, clean, torch.ones_like(clean), mu, scan, 0.0, int(seed))
    counted = poisson_transmission(clean, I0, seed=seed, items=items)
    return SimulatedCT(
        counted.line_integrals, clean, counted.weights, mu, scan, counted.starved, int(seed)
    )


def measure(
    image: Tensor,
    operator: LinearOperator,
    noise_std: float | Tensor = 0.0,
    *,
    seed: int = 0,
    items: Sequence[int] | None = None,
) -> Tensor:
    """y = A x + noise_std n for images (B, *in_shape): noise only where A measures.

    Masks keep their unmeasured zeros. On the operator's own grid: for tests of methods, not of
    the whole chain.
    """
    y = operator(image)
    mask = getattr(operator, "mask", None)
    where = None
    if isinstance(mask, Tensor):
        where = mask[:, None] if y.is_complex() and mask.ndim == 3 else mask
    return add_gaussian(y, noise_std, seed=seed, items=items, where=where)


def upsampled(volume: Tensor, factor: int) -> Tensor:
    """(slices, H, W) -> (slices, factor H, factor W) by bicubic interpolation; complex by parts."""
    if volume.is_complex():
        return torch.complex(upsampled(volume.real, factor), upsampled(volume.imag, factor))
    size = [factor * n for n in volume.shape[-2:]]
    return torch.nn.functional.interpolate(
        volume[:, None], size=size, mode="bicubic", align_corners=False
    )[:, 0]


def smooth_phase(size: tuple[int, int], spread: float, seed: int) -> Tensor:
    """A random polynomial of degree 3 over (H, W), float64, whose range is `spread` radians."""
    rng = generator(seed, 0, _PHASE)
    y, x = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in size)
    powers = [(i, j) for i in range(4) for j in range(4 - i)]
    weights = rng.standard_normal(len(powers))
    field = torch.zeros(len(y), len(x), dtype=y.dtype)
    for w, (i, j) in zip(weights, powers, strict=True):
        field = field + float(w) * torch.outer(y**i, x**j)
    width = float(field.max() - field.min())
    return (field - field.mean()) * (spread / width)


def _sampling(
    mask: Tensor | SamplingMask | None, width: int, acceleration: float, seed: int
) -> Tensor:
    if isinstance(mask, SamplingMask):
        return mask.mask
    if mask is not None:
        return mask
    if acceleration == 1:
        return torch.ones(width, dtype=torch.bool)
    return column_mask("equispaced-fraction", width, acceleration, seed=seed).mask


def _cropped(k: Tensor, H: int, W: int) -> Tensor:
    """The central (H, W) of centred k-space."""
    top, left = k.shape[-2] // 2 - H // 2, k.shape[-1] // 2 - W // 2
    return k[..., top : top + H, left : left + W]


def _finer(scan: Radon) -> Radon:
    """The same scan of an image of half the pixel size, each detector element halved."""
    g = scan.geometry
    fan = g.kind != "parallel"
    H, W = scan.in_shape[1:]
    return Radon(
        (2 * H, 2 * W),
        g.angles.tolist(),
        2 * g.detectors,
        g.kind,
        scan.pixel_size / 2,
        detector_spacing=g.spacing / 2,
        detector_offset=g.offset,
        source_distance=g.source_distance if fan else None,
        detector_distance=g.detector_distance if fan else None,
    )


def _checked_volume(image: Tensor) -> Tensor:
    volume = image[None] if image.ndim == 2 else image
    if volume.ndim != 3 or not (volume.is_floating_point() or volume.is_complex()):
        raise ValueError(
            f"image must be (H, W) or (slices, H, W), floating point or complex; got "
            f"{tuple(image.shape)} {image.dtype}"
        )
    parts = torch.view_as_real(volume) if volume.is_complex() else volume
    if not bool(parts.isfinite().all()):
        raise ValueError("image holds NaN or infinite values")
    return volume
