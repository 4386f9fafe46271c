"""Coil maps of a scan from all of its lines, few calibration lines or none: image and maps in turn.

The first image is flat, which makes the first maps a smooth fit of the coils' own images; then
CG-SENSE with a stationary prior gives the image, and the image gives the maps. Maps depend on the
coarse image alone, so no learned prior is needed here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from operators.coil_fit import OVER, SmoothFields, fit_maps
from operators.linalg import conjugate_gradient
from operators.linear import LinearOperator, as_channels, as_complex
from operators.mri import CartesianMRI
from operators.mri.coils import unit_norm

from .calibration import sampled_centre


@dataclass(frozen=True)
class Rounds:
    """rounds of image and maps; variances of the data given the flat image and given a
    reconstruction, in the data's mean power."""

    rounds: int
    flat: float
    reconstructed: float


# The central lines make a flat image good enough for a start that only details mislead; a second
# round gains nothing at twelve lines and loses at four. Without them the image has to explain the
# data from the first.
CENTRE, NO_CENTRE = Rounds(1, 100.0, 1.0), Rounds(8, 1.0, 0.05)
# Std of the image's amplitude at f cycles a pixel: 1 / (1 + (f / CORNER)^2); of its imaginary
# part, the share that smooth maps leave; both relative to the image's root mean square.
CORNER, IMAGINARY = 0.07, 0.1


def schedule(mask: Tensor) -> Rounds:
    """CENTRE where mask (H, W) has a calibration region, else NO_CENTRE."""
    return NO_CENTRE if sampled_centre(mask) is None else CENTRE


def fitted_maps(
    kspace: Tensor,
    mask: Tensor,
    noise_std: Tensor,
    start: Tensor | None = None,
    *,
    rounds: int | None = None,
    over: float = OVER,
) -> Tensor:
    """Maps (B, coils, H, W), sum |.|^2 = 1, whose phase leaves the image nearly real.

    kspace (B, coils, H, W), zero outside mask (H, W), coils of one noise level; noise_std (B,) per
    real and imaginary part. start: maps to begin with instead of a flat image. over: the maps'
    grid, in fields of view. c times kspace gives the same maps times the phase of c.
    """
    shape, plan = (kspace.shape[-2], kspace.shape[-1]), schedule(mask)
    if rounds is not None:
        plan = replace(plan, rounds=rounds)
    sampling = CartesianMRI(mask, image_shape=shape)
    fields = SmoothFields.of(shape, kspace, over=over)
    maps = [
        _of_item(
            as_complex(sampling.T(k[:, None])),
            sampling,
            fields,
            float(std),
            None if start is None else start[b % len(start)],
            plan,
        )
        for b, (k, std) in enumerate(zip(kspace, noise_std, strict=True))
    ]
    return torch.stack(maps)


def _of_item(
    coil_images: Tensor,
    sampling: CartesianMRI,
    fields: SmoothFields,
    noise_std: float,
    maps: Tensor | None,
    plan: Rounds,
) -> Tensor:
    """Maps (coils, H, W) of coil images F^H y of one item."""
    power = coil_images.abs().square().mean() / sampling.mask.float().mean()
    noise = 2 * noise_std**2 / power + 1e-6
    # One unit for all: data, maps and image of mean power 1, a coil and a pixel.
    coil_images, root = coil_images / power.sqrt(), len(coil_images) ** 0.5
    if maps is None:
        flat = torch.ones_like(coil_images[0])
        maps = fit_maps(flat, coil_images, sampling, fields, plan.flat + noise)
    maps = unit_norm(maps)
    for _ in range(plan.rounds):
        image = smooth_image(coil_images, root * maps, sampling, noise)
        maps = unit_norm(fit_maps(image, coil_images, sampling, fields, plan.reconstructed + noise))
    return maps


def smooth_image(
    coil_images: Tensor,
    maps: Tensor,
    sampling: LinearOperator,
    variance: Tensor,
    *,
    iterations: int = 15,
) -> Tensor:
    """x (H, W) = L q, argmin |y - F S L q|^2 / variance + |q|^2, L the law of CORNER, IMAGINARY."""
    amplitude = _amplitude(coil_images[0])

    def shaped(q: Tensor) -> Tensor:
        spectrum = torch.fft.fft2(as_channels(q[None])[0]) * amplitude
        x = torch.fft.ifft2(spectrum).real
        return torch.complex(x[0], IMAGINARY * x[1])

    def normal(q: Tensor) -> Tensor:
        seen = as_complex(sampling.normal(as_channels(maps * shaped(q[0]))))
        return (shaped((maps.conj() * seen).sum(0)) / variance + q[0])[None]

    b = shaped((maps.conj() * coil_images).sum(0)) / variance
    q, _ = conjugate_gradient(normal, b[None], tol=1e-4, max_iter=iterations)
    return shaped(q[0])


def _amplitude(image: Tensor) -> Tensor:
    fy, fx = (torch.fft.fftfreq(n, device=image.device) for n in image.shape)
    law = 1 / (1 + (fy[:, None] ** 2 + fx[None] ** 2) / CORNER**2)
    return (law / law.square().mean().sqrt()).to(image.real)
