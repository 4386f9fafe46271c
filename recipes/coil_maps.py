"""Coil maps of a scan from all of its lines, few calibration lines or none: image and maps in turn.

The first image is flat, which makes the first maps a smooth fit of the coils' own images; then
CG-SENSE with a stationary prior gives the image, and the image gives the maps. Maps depend on the
coarse image alone, so no learned prior is needed here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from operators.coil_fit import SmoothFields, fit_maps
from operators.coils import unit_norm
from operators.linalg import conjugate_gradient
from operators.linear import LinearOperator, as_channels, as_complex
from operators.mri import CartesianMRI

ROUNDS = 2
# Variance of the data given the image, in their mean power: a flat image tells next to nothing
# of its details, a reconstruction most of what matters.
FLAT, RECONSTRUCTED = 100.0, 1.0
# Std of the image's amplitude at f cycles a pixel: 1 / (1 + (f / CORNER)^2); of its imaginary
# part, the share that smooth maps leave; both relative to the image's root mean square.
CORNER, IMAGINARY = 0.07, 0.1


def fitted_maps(
    kspace: Tensor,
    mask: Tensor,
    noise_std: Tensor,
    start: Tensor | None = None,
    *,
    rounds: int = ROUNDS,
) -> Tensor:
    """Maps (B, coils, H, W), sum |.|^2 = 1, whose phase leaves the image nearly real.

    kspace (B, coils, H, W), zero outside mask (H, W), coils of one noise level; noise_std (B,) per
    real and imaginary part. start: maps to begin with instead of a flat image. c times kspace
    gives the same maps times the phase of c.
    """
    shape = (kspace.shape[-2], kspace.shape[-1])
    sampling, fields = CartesianMRI(mask, image_shape=shape), SmoothFields.of(shape, kspace)
    maps = [
        _of_item(
            as_complex(sampling.T(k[:, None])),
            sampling,
            fields,
            float(std),
            None if start is None else start[b % len(start)],
            rounds,
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
    rounds: int,
) -> Tensor:
    """Maps (coils, H, W) of coil images F^H y of one item."""
    power = coil_images.abs().square().mean() / sampling.mask.float().mean()
    noise = 2 * noise_std**2 / power + 1e-6
    # One unit for all: data, maps and image of mean power 1, a coil and a pixel.
    coil_images, root = coil_images / power.sqrt(), len(coil_images) ** 0.5
    if maps is None:
        flat = torch.ones_like(coil_images[0])
        maps = unit_norm(fit_maps(flat, coil_images, sampling, fields, FLAT + noise))
    for _ in range(rounds):
        image = smooth_image(coil_images, root * maps, sampling, noise)
        maps = unit_norm(fit_maps(image, coil_images, sampling, fields, RECONSTRUCTED + noise))
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
