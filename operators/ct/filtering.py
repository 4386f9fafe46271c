"""Filtered backprojection: ramp filters, fan-beam weights and redundancy."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from .geometry import Geometry

FILTERS = ("ramp", "shepp-logan", "cosine", "hamming", "hann")


def filtered(sinogram: Tensor, spacing: float, window: str, *, arc: float | None = None) -> Tensor:
    """Each projection (last axis) convolved with the band-limited ramp, samples `spacing` apart.

    The ramp is sampled in space (Kak & Slaney 1988, eq. 3.61), which keeps its mean right;
    `arc` is the angle between rays of an equiangular fan (eq. 3.116: g = (gamma / sin gamma)^2
    h / 2, the half left to the caller). window: one of FILTERS.
    """
    if window not in FILTERS:
        raise ValueError(f"filter must be one of {', '.join(FILTERS)}; got {window!r}")
    count = sinogram.shape[-1]
    length = 2 ** math.ceil(math.log2(max(64, 2 * count)))
    n = np.fft.fftfreq(length, 1 / length)
    kernel = np.zeros(length)
    odd = n % 2 != 0
    if arc is None:
        kernel[odd] = -1 / (math.pi * n[odd] * spacing) ** 2
    else:
        # Beyond the fan's width nothing reads the kernel, and its sine returns to zero.
        odd &= np.abs(n) < count
        kernel[odd] = -1 / (math.pi * np.sin(n[odd] * arc) / arc * spacing) ** 2
    kernel[0] = 1 / (4 * spacing**2)
    response = np.fft.rfft(kernel).real * spacing * _window(window, length)
    spectrum = torch.fft.rfft(sinogram, n=length)
    response = torch.from_numpy(response).to(device=sinogram.device, dtype=sinogram.dtype)
    return torch.fft.irfft(spectrum * response, n=length)[..., :count]


def _window(name: str, length: int) -> np.ndarray:
    frequency = np.fft.rfftfreq(length)
    if name == "shepp-logan":
        return np.sinc(frequency)
    if name == "cosine":
        return np.cos(math.pi * frequency)
    if name == "hamming":
        return 0.54 + 0.46 * np.cos(TURN * frequency)
    if name == "hann":
        return 0.5 + 0.5 * np.cos(TURN * frequency)
    return np.ones_like(frequency)


TURN = 2 * math.pi


def angular_weights(angles: np.ndarray, period: float) -> np.ndarray:
    """The angle each view stands for (A,): half the distance to either neighbour.

    A gap wider than three times the median is missing data, not a step: a limited-angle scan's
    ends get half a step on that side.
    """
    if len(angles) == 1:
        return np.array([period])
    order = np.argsort(np.mod(angles, period), kind="stable")
    sorted_ = np.mod(angles, period)[order]
    gaps = np.diff(np.append(sorted_, sorted_[0] + period))
    gaps = np.minimum(gaps, 3 * np.median(gaps)) if np.median(gaps) > 0 else gaps
    step = np.where(gaps >= 3 * np.median(gaps), np.median(gaps), gaps)
    weights = np.empty(len(angles))
    weights[order] = (step + np.roll(step, 1)) / 2
    return weights


def pixel_coordinates(
    size: tuple[int, int], pixel_size: float, like: Tensor
) -> tuple[Tensor, Tensor]:
    """X (W,) to the right and Y (H, 1) upwards from the image's centre, mm."""
    H, W = size
    columns, rows = (torch.arange(n, device=like.device, dtype=like.dtype) for n in (W, H))
    X = (columns - (W - 1) / 2) * pixel_size
    Y = ((H - 1) / 2 - rows)[:, None] * pixel_size
    return X, Y


def fbp(
    sinogram: Tensor, geometry: Geometry, size: tuple[int, int], pixel_size: float, window: str
) -> Tensor:
    """(N, A, D) line integrals (value times mm) -> (N, H, W) values.

    Parallel: Kak & Slaney (1988), section 3.3; fan beams: section 3.4.1 (arc) and 3.4.2 (flat),
    the views over a full turn. Parallel views over more than half a turn, and fan views over a
    full turn, see each line twice and share the weight; a short fan scan (less than a turn)
    weighs its views by Parker (1982).
    """
    if geometry.kind == "parallel":
        turn = _covered(geometry.angles) > 1.5 * math.pi
        period = TURN if turn else math.pi
        weight = angular_weights(geometry.angles, period) * (0.5 if turn else 1.0)
        q = filtered(sinogram, geometry.spacing, window)
    else:
        q, weight = _fan_filtered(sinogram, geometry, window)
    X, Y = pixel_coordinates(size, pixel_size, sinogram)
    image = sinogram.new_zeros(sinogram.shape[0], *size)
    for view, beta in enumerate(geometry.angles):
        if weight[view] > 0:
            u, scale = _seen(X, Y, float(beta), geometry)
            place = (u - geometry.offset) / geometry.spacing + (geometry.detectors - 1) / 2
            image += float(weight[view]) * scale * _interpolated(q[:, view], place)
    return image


def _covered(angles: np.ndarray) -> float:
    """The arc the views cover, their own step included."""
    if len(angles) < 2:
        return 0.0
    sorted_ = np.sort(np.mod(angles, TURN))
    gaps = np.diff(np.append(sorted_, sorted_[0] + TURN))
    return float(TURN - gaps.max() + np.median(gaps))


def _fan_filtered(sinogram: Tensor, geometry: Geometry, window: str) -> tuple[Tensor, np.ndarray]:
    """Weighted and filtered projections, and the weight of each view."""
    gamma = torch.from_numpy(geometry.fan_angles).to(sinogram)
    R, far = geometry.source_distance, geometry.source_distance + geometry.detector_distance
    covered = _covered(geometry.angles)
    full = covered > 1.9 * math.pi
    weight = angular_weights(geometry.angles, TURN)
    weighted = sinogram * torch.cos(gamma)
    if full:
        weight = 0.5 * weight
    else:
        weighted = weighted * torch.from_numpy(_parker(geometry, covered)).to(sinogram)
    if geometry.kind == "fan-flat":
        # On the virtual detector through the axis, spacing and u shrink by R / far.
        return filtered(weighted, geometry.spacing * R / far, window), weight
    arc = geometry.spacing / far
    return filtered(weighted * R, arc, window, arc=arc), weight


def _parker(geometry: Geometry, covered: float) -> np.ndarray:
    """Redundancy weights (A, D) of a short scan, smooth and summing to 1 (Parker 1982).

    Ray (beta, gamma) is measured again as (beta + pi - 2 gamma, -gamma), theta = beta - gamma.
    """
    start = _scan_start(geometry.angles)
    beta = np.mod(geometry.angles - start + 1e-9, TURN)[:, None] - 1e-9
    gamma = -geometry.fan_angles[None]
    delta = max((covered - math.pi) / 2, float(np.abs(gamma).max()) * 1e-3, 1e-6)
    weight = np.ones((len(geometry.angles), geometry.detectors))
    rise, fall = 2 * (delta - gamma), math.pi - 2 * gamma
    with np.errstate(divide="ignore", invalid="ignore"):
        up = np.sin(math.pi / 4 * beta / np.maximum(delta - gamma, 1e-12)) ** 2
        down = np.sin(math.pi / 4 * (covered - beta) / np.maximum(delta + gamma, 1e-12)) ** 2
    weight = np.where(beta < rise, up, weight)
    weight = np.where(beta > fall, down, weight)
    return np.where(beta > covered, 0.0, weight)


def _scan_start(angles: np.ndarray) -> float:
    sorted_ = np.sort(np.mod(angles, TURN))
    gaps = np.diff(np.append(sorted_, sorted_[0] + TURN))
    return float(sorted_[(int(np.argmax(gaps)) + 1) % len(sorted_)])


def _seen(X: Tensor, Y: Tensor, beta: float, geometry: Geometry) -> tuple[Tensor, Tensor | float]:
    """Where each pixel falls on the detector (mm) and its distance weight."""
    along = X * math.cos(beta) + Y * math.sin(beta)
    if geometry.kind == "parallel":
        return along, 1.0
    R = geometry.source_distance
    far = R + geometry.detector_distance
    depth = R + (-X * math.sin(beta) + Y * math.cos(beta))
    if geometry.kind == "fan-flat":
        return far * along / depth, (R / depth) ** 2
    return far * torch.atan2(along, depth), 1 / (along**2 + depth**2)


def _interpolated(q: Tensor, place: Tensor) -> Tensor:
    """Linear interpolation of q (N, D) at positions place (H, W), zero outside."""
    count = q.shape[-1]
    below = place.floor()
    part = place - below
    inside = (below >= 0) & (below <= count - 2)
    index = below.clamp(0, max(count - 2, 0)).long()
    nearby = q[:, index] * (1 - part) + q[:, (index + 1).clamp(max=count - 1)] * part
    return nearby * inside
