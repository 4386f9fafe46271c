"""What an MRI scan says about itself: noise, calibration region, phase and scale.

All of it is read from the undersampled k-space alone, and all of it is equivariant: k-space times
c gives noise and scale times |c|, and the same maps up to the phase of c.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from inverse_score.errors import BadInput
from operators.fourier import fft2c, ifft2c
from operators.mri import coils
from operators.mri.coils import espirit

# Of the half-width of k-space: samples beyond are noise and little else.
BORDER = 0.85
# Of the half-width of the image along the readout: often air beyond.
AIR = 0.8
# Samples that an estimate of the noise needs at least.
LEAST = 32
# Samples a side that an image of several coils needs at least.
LEAST_LINES = 4
QUANTILE, OVERVIEW = 0.99, 56


def as_kspace(kspace: Tensor, name: str = "kspace") -> Tensor:
    """kspace as (B, coils, H, W) complex64 or complex128; (coils, H, W) becomes one item."""
    kspace = torch.as_tensor(kspace)
    if not kspace.is_complex():
        raise BadInput(f"{name} must be complex; got {kspace.dtype} {tuple(kspace.shape)}")
    if kspace.ndim == 3:
        kspace = kspace[None]
    if kspace.ndim != 4:
        raise BadInput(f"{name} must be (coils, H, W) or (B, coils, H, W); got {kspace.shape}")
    if not bool(torch.view_as_real(kspace).isfinite().all()):
        raise BadInput(f"{name} holds NaN or infinite values")
    return kspace if kspace.dtype == torch.complex128 else kspace.to(torch.complex64)


def full_mask(mask: Tensor | None, kspace: Tensor) -> Tensor:
    """mask as bool (H, W); None: whatever is not zero in all coils and items, by whole columns."""
    H, W = kspace.shape[-2:]
    if mask is None:
        measured = (kspace != 0).any(dim=(0, 1))
        columns = measured.any(dim=0)
        return columns.expand(H, W).clone()
    mask = torch.as_tensor(mask)
    if tuple(mask.shape) not in {(W,), (H, W), (1, W)}:
        raise BadInput(f"mask must be ({W},) or ({H}, {W}), as kspace; got {tuple(mask.shape)}")
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise BadInput("mask must hold only 0 and 1")
    if not bool(mask.any()):
        raise BadInput("mask is zero everywhere: nothing was measured")
    return mask.bool().expand(H, W).clone()


def noise_std(kspace: Tensor, mask: Tensor) -> Tensor:
    """Noise std (B, coils) per real and imaginary part: the border's, or the air's where lower.

    Signal only adds to either estimate, and sharp edges reach far into the border of a small
    scan. The air's is taken where it is lower by more than chance, two standard errors.
    """
    border, count = border_noise_std(kspace, mask)
    air, quiet = air_noise_std(kspace, mask)
    if max(count, quiet) < LEAST:
        raise BadInput(
            f"the border of k-space has only {count} samples to estimate the noise from; give "
            "noise_std (--noise-std), per real and imaginary part"
        )
    if quiet < LEAST:
        return border
    # The median of n exponential powers scatters by 1 / (ln 2 sqrt(n)), its root by half of that.
    error = math.hypot(1 / max(count, 1) ** 0.5, 1 / quiet**0.5) / (2 * math.log(2))
    lower = (air < border * (1 - 2 * error)) | (count < LEAST)
    return torch.where(lower & (air > 0), air, border)


def border_noise_std(kspace: Tensor, mask: Tensor) -> tuple[Tensor, int]:
    """(noise std (B, coils), least number of samples) from the border of k-space, mask (H, W)."""
    row, column = _from_centre(kspace)
    border = (torch.maximum(row[:, None], column[None]) > BORDER).to(mask.device) & mask
    return _from_powers(kspace[..., border].abs().square())


def air_noise_std(kspace: Tensor, mask: Tensor) -> tuple[Tensor, int]:
    """(noise std (B, coils), least number of samples) from the ends of the readout's field of view.

    Where whole columns are measured, an inverse FFT along them leaves white noise white; beyond
    AIR of the half-width there is often no object, and of its columns only the outer half of
    k-space is taken. (0, 0) samples where columns are not whole.
    """
    columns = mask.any(0)
    if bool((mask != columns).any()):
        return torch.zeros(kspace.shape[:2], device=kspace.device), 0
    row, column = _from_centre(kspace)
    outer = columns & (column > 0.5).to(mask.device)
    lines = ifft2c(kspace[..., outer], dim=(-2,))
    return _from_powers(lines[..., row.to(mask.device) > AIR, :].flatten(2).abs().square())


def _from_powers(power: Tensor) -> tuple[Tensor, int]:
    """|n|^2 (B, coils, n) of circular complex noise is exponential: mean 2 s^2, median 2 s^2 ln 2.

    The median shrugs off what signal is among them. Zeros are not samples.
    """
    sampled = power > 0
    count = int(sampled.sum(-1).min()) if power.shape[-1] else 0
    if count == 0:
        return torch.zeros(power.shape[:-1], device=power.device), 0
    median = power.where(sampled, torch.nan).nanmedian(dim=-1).values
    return (median / (2 * math.log(2))).sqrt(), count


def _from_centre(kspace: Tensor) -> tuple[Tensor, Tensor]:
    """Distance of rows (H,) and columns (W,) from the centre, 1 at the border."""
    H, W = kspace.shape[-2:]
    return tuple((torch.arange(n) - n // 2).abs() / (n / 2) for n in (H, W))  # type: ignore[return-value]


def calibration_lines(mask: Tensor) -> tuple[int, int]:
    """operators.mri.coils.calibration_size of mask (H, W), as BadInput where there is none."""
    try:
        return coils.calibration_size(mask)
    except ValueError as error:
        raise BadInput(str(error)) from error


def sampled_centre(mask: Tensor) -> tuple[int, int] | None:
    """calibration_lines(mask), None where there is none."""
    try:
        return coils.calibration_size(mask)
    except ValueError:
        return None


def central_box(shape: Sequence[int], region: tuple[int, int]) -> Tensor:
    """bool (H, W): 1 in the calibration region."""
    box = torch.zeros(tuple(shape), dtype=torch.bool)
    top, left = (n // 2 - r // 2 for n, r in zip(shape, region, strict=True))
    box[max(top, 0) : top + region[0], max(left, 0) : left + region[1]] = True
    return box


def espirit_maps(kspace: Tensor, region: tuple[int, int]) -> Tensor:
    """ESPIRiT maps (B, coils, H, W) from the calibration region (rows, columns) of each item."""
    H, W = kspace.shape[-2:]
    mask = torch.zeros(H, W, device=kspace.device)
    top, left = H // 2 - region[0] // 2, W // 2 - region[1] // 2
    mask[top : top + region[0], left : left + region[1]] = 1
    return torch.stack([espirit(item, mask) for item in kspace])


def real_phase(maps: Tensor, low: Tensor) -> Tensor:
    """Maps times a phase (B, 1, H, W) that makes the combined low-resolution image >= 0.

    Coil maps are known up to a phase of each pixel. Priors of this package are learnt from images
    that are nearly real, so the image's smooth phase goes into the maps.
    """
    combined = (maps.conj() * low).sum(-3, keepdim=True)
    size = combined.abs()
    phase = torch.where(size > 0, combined / size.clamp(min=1e-30), torch.ones_like(combined))
    return maps * phase


def image_scale(image: Tensor) -> Tensor:
    """(B,): the 99 % quantile of |image| (B, H, W), averaged over blocks to 56 pixels a side.

    Blocks, because noise and aliasing would move the quantile of single pixels; the quantile and
    the 56 pixels are those that the package's MRI priors were trained with.
    """
    H, W = image.shape[-2:]
    size = [max(1, min(n, round(OVERVIEW * n / max(H, W)))) for n in (H, W)]
    blocks = torch.nn.functional.interpolate(image.abs()[:, None], size=size, mode="area")
    scale = blocks.flatten(1).quantile(QUANTILE, dim=1)
    if not bool((scale > 0).all()):
        raise BadInput("the calibrated image is zero: there is nothing to scale by")
    return scale


def crop_readout(kspace: Tensor, rows: int) -> Tensor:
    """k-space of the central `rows` of the image: readout oversampling removed.

    Exact where whole columns are measured, since the readout direction is then fully sampled;
    white noise stays white with the same std.
    """
    H = kspace.shape[-2]
    if rows == H:
        return kspace
    top = (H - rows) // 2
    return fft2c(ifft2c(kspace, dim=(-2,))[..., top : top + rows, :], dim=(-2,))


def whitening(kspace: Tensor, noise: Tensor) -> Tensor:
    """L^-1, which makes coils independent with unit noise per real and imaginary part.

    noise: (coils, N) samples of a noise scan; their covariance is 2 L L^H.
    """
    coils = kspace.shape[-3]
    if noise.ndim != 2 or noise.shape[0] != coils or noise.shape[1] < 2 * coils:
        raise BadInput(
            f"noise must be (coils, samples) with {coils} coils and at least {2 * coils} samples; "
            f"got {tuple(noise.shape)}"
        )
    covariance = noise @ noise.mH / noise.shape[1]
    return torch.linalg.inv(torch.linalg.cholesky(covariance / 2)).to(kspace.dtype)
