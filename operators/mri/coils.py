"""Coil sensitivity maps: ESPIRiT, a fast low-resolution estimate, and simulated birdcage maps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..fourier import ifft2c


def calibration_size(mask: Tensor) -> tuple[int, int]:
    """(rows, columns) of the largest fully sampled rectangle around the centre of mask (H, W).

    Of rectangles whose half-widths grow together, then in one direction while the other is
    stopped. Raises ValueError if fewer than 4 lines a side are there: no map can be made of them.
    """
    H, W = mask.shape
    half = [0, 0]

    def full(rows: int, columns: int) -> bool:
        top, left = max(H // 2 - rows, 0), max(W // 2 - columns, 0)
        return bool(mask[top : H // 2 + rows, left : W // 2 + columns].all())

    growing = [True, True]
    while any(growing):
        for axis, limit in enumerate((H - H // 2, W - W // 2)):
            wider = [h + (k == axis) for k, h in enumerate(half)]
            both = [max(h, 1) for h in wider]
            growing[axis] = growing[axis] and wider[axis] <= limit and full(*both)
            if growing[axis]:
                half = wider
    rows, columns = 2 * half[0], 2 * half[1]
    if min(rows, columns) < 4:
        raise ValueError(
            f"k-space has no calibration region: only {rows} x {columns} samples around its centre "
            "are complete. Give coil maps (sens_maps), or a mask with a sampled centre"
        )
    return min(rows, H), min(columns, W)


def calibration_region(kspace: Tensor, mask: Tensor, *, most: int = 32) -> Tensor:
    """The largest central block (coils, h, w) of k-space that is fully sampled.

    kspace: (coils, H, W); mask: (W,) or (H, W); sides at most `most`. Raises ValueError if less
    than 4 x 4 entries around the centre are sampled.
    """
    H, W = kspace.shape[-2:]
    h, w = (min(most, n) for n in calibration_size(mask.bool().expand(H, W)))
    top, left = H // 2 - h // 2, W // 2 - w // 2
    return kspace[:, top : top + h, left : left + w]


def espirit(
    kspace: Tensor,
    mask: Tensor,
    *,
    kernel: int = 6,
    threshold: float = 0.02,
    crop: float = 0.8,
    calibration: int = 24,
    iterations: int = 30,
) -> Tensor:
    """Sensitivity maps (coils, H, W) by ESPIRiT (Uecker et al. 2014), one set of maps.

    kspace: (coils, H, W) centred, undersampled outside its centre; mask: (W,) or (H, W). Every
    kernel x kernel patch of the calibration region (at most `calibration` wide) is a row of a
    matrix whose singular vectors above `threshold` of the largest span the patches; the maps
    are, pixel by pixel, the eigenvector of that projection with eigenvalue near 1. Pixels with
    eigenvalue below `crop` are set to 0. Norm over coils 1; phase relative to the sum of coils
    weighted by their share in the calibration data.
    """
    if kspace.ndim != 3 or not kspace.is_complex():
        raise ValueError(f"kspace must be complex (coils, H, W); got {tuple(kspace.shape)}")
    if not bool(torch.view_as_real(kspace).isfinite().all()):
        raise ValueError("kspace holds NaN or infinite values")
    region = calibration_region(kspace, mask, most=calibration)
    k = min(kernel, *region.shape[-2:])
    coils, H, W = kspace.shape
    patches = region.unfold(1, k, 1).unfold(2, k, 1)
    rows = patches.permute(1, 2, 0, 3, 4).reshape(-1, coils * k * k)
    gram = rows.mH @ rows
    values, vectors = torch.linalg.eigh(gram)
    kept = values > (threshold**2) * values[-1]
    kernels = vectors[:, kept].T.conj().reshape(-1, coils, k, k)
    projection = _image_projection(kernels, (H, W))
    maps, eigenvalue = _leading(projection, iterations)
    weight = region.abs().square().sum((1, 2)).sqrt()
    u = _coil_phase(region) * weight
    aligned = (maps.conj() * u[:, None, None]).sum(0)
    maps = maps * torch.polar(torch.ones_like(aligned.abs()), aligned.angle())
    return maps * (eigenvalue > crop)


def _coil_phase(region: Tensor) -> Tensor:
    """The dominant coil combination of the calibration data, unit modulus each."""
    flat = region.flatten(1)
    _, vectors = torch.linalg.eigh(flat @ flat.mH)
    v = vectors[:, -1]
    return torch.polar(torch.ones_like(v.abs()), v.angle())


def _image_projection(kernels: Tensor, size: tuple[int, int]) -> Tensor:
    """(H, W, coils, coils): sum over kernels of v v^H at each pixel, scaled to eigenvalues <= 1.

    The correlation of two kernels is a polynomial of degree 2 k - 2 in the pixel's phase, so it is
    summed in k-space first and transformed once per pair of coils.
    """
    k = kernels.shape[-1]
    # F of each kernel on a grid that holds its autocorrelation.
    n = 2 * k - 1
    spectra = torch.fft.fft2(kernels, s=(n, n))
    cross = torch.einsum("jcuv,jduv->cduv", spectra.conj(), spectra)
    lags = torch.fft.fftshift(torch.fft.ifft2(cross), dim=(-2, -1))
    H, W = size
    lag = torch.arange(n, device=kernels.device) - (k - 1)
    real = kernels.real.dtype

    def phases(length: int) -> Tensor:
        place = torch.arange(length, device=kernels.device) - length // 2
        angle = 2 * math.pi / length * torch.outer(place.to(real), lag.to(real))
        return torch.polar(torch.ones_like(angle), angle)

    image = torch.einsum("hu,cduv,wv->hwcd", phases(H), lags, phases(W))
    return image.conj() / (k * k)


def _leading(projection: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Leading eigenvector (coils, H, W) and eigenvalue (H, W) of Hermitian (H, W, C, C)."""
    v = projection.new_ones(*projection.shape[:3], 1)
    value = torch.zeros(projection.shape[:2], device=projection.device)
    for _ in range(iterations):
        w = projection @ v
        value = torch.linalg.vector_norm(w, dim=(-2, -1))
        v = w / value.clamp_min(1e-30)[..., None, None]
    return v[..., 0].permute(2, 0, 1).contiguous(), value


def low_resolution(kspace: Tensor, region: tuple[int, int]) -> Tensor:
    """Coil images (..., coils, H, W) from the central region (rows, columns) of k-space.

    Hann-windowed against ringing.
    """
    H, W = kspace.shape[-2:]
    window = _hann(H, region[0], kspace)[:, None] * _hann(W, region[1], kspace)[None]
    return ifft2c(kspace * window)


def unit_norm(images: Tensor) -> Tensor:
    """Maps images / sqrt(sum |images|^2) over coils (McKenzie et al. 2002); sum |.|^2 = 1."""
    norm = images.abs().square().sum(-3, keepdim=True).sqrt()
    return images / norm.clamp(min=1e-6 * float(norm.max()))


def low_resolution_maps(kspace: Tensor, mask: Tensor, *, calibration: int = 24) -> Tensor:
    """Maps (coils, H, W) from the calibration region alone: fast, smooth, norm over coils 1.

    Each coil's low-resolution image over their root sum of squares; pixels below 2 % of the
    largest root sum of squares are damped to 0.
    """
    if kspace.ndim != 3 or not kspace.is_complex():
        raise ValueError(f"kspace must be complex (coils, H, W); got {tuple(kspace.shape)}")
    h, w = calibration_region(kspace, mask, most=calibration).shape[-2:]
    images = low_resolution(kspace, (h, w))
    rss = images.abs().square().sum(0).sqrt()
    floor = 0.02 * rss.max()
    return unit_norm(images) * (rss / (rss + 0.1 * floor)) * (rss > floor)


def _hann(size: int, support: int, like: Tensor) -> Tensor:
    """1 at the centre size // 2, falling to 0 at the ends of the support."""
    distance = (torch.arange(size, device=like.device) - size // 2).abs() / (support / 2 + 0.5)
    window = 0.5 + 0.5 * torch.cos(math.pi * distance.clamp(max=1))
    return window.to(like.real.dtype) * (distance < 1)


def birdcage_maps(
    coils: int, size: tuple[int, int], *, radius: float = 1.5, rotation: float = 0.0
) -> Tensor:
    """Simulated maps (coils, H, W) complex64 of loops on a circle around the image; norm 1.

    Coil c at angle 2 pi c / coils + rotation and at `radius` half-widths of the image: magnitude
    1 / distance, phase the angle under which the pixel sees the coil (as in common simulations of
    a birdcage array).
    """
    if coils < 1 or radius <= 1:
        raise ValueError(f"need at least one coil at radius > 1; got {coils}, {radius}")
    H, W = size
    Y, X = torch.meshgrid(
        torch.linspace(-1, 1, H, dtype=torch.float64),
        torch.linspace(-1, 1, W, dtype=torch.float64),
        indexing="ij",
    )
    angle = 2 * math.pi * torch.arange(coils, dtype=torch.float64) / coils + rotation
    dx = X - radius * torch.cos(angle)[:, None, None]
    dy = Y - radius * torch.sin(angle)[:, None, None]
    maps = torch.polar(1 / torch.hypot(dx, dy), torch.atan2(dx, -dy) + angle[:, None, None])
    return (maps / maps.abs().square().sum(0).sqrt()).to(torch.complex64)
