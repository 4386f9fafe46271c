"""The held-out error of a denoiser, measured for the prior's card (posterior.covariance)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..prior import Prior
from ..randomness import OTHER, Noise
from .covariance import dct, radius
from .local import WINDOW, nodes, read_off, tabulate


@torch.no_grad()
def error_spectrum(
    prior: Prior,
    images: Tensor,
    *,
    sigma: list[float] | None = None,
    bins: str = "auto",
    local: bool | None = None,
    seed: int = 0,
    batch_size: int = 16,
) -> dict[str, Any]:
    """The card's "error_spectrum", measured on held-out images (N, C, H, W) in data units.

    sigma: the levels r = sigma / alpha (default: 28 from the prior's t_min to 30 times the
    images' standard deviation, or the SDE's end). bins: "full" or "radial"; "auto" takes "full"
    up to 16x16 pixels. local: whether to measure where in an image the error is large; None does
    so above 16x16 pixels, of which a window of 5 is a small part. Costs len(sigma) * N denoiser
    calls, and memory for two copies of the images. Raises ValueError for other shapes.
    """
    u = _checked(prior, images, bins)
    sigma = _levels(prior, u) if sigma is None else sorted(float(s) for s in sigma)
    if bins == "auto":
        bins = "full" if max(u.shape[-2:]) <= 16 else "radial"
    local = max(u.shape[-2:]) > 16 if local is None else local
    channels = _channel_directions(u)
    frequency, index = _bins(bins, u.shape[-2:])
    activity, grey = nodes(u) if local else ([], [])
    values, means, stds, scales = [], [], [], []
    for level, r in enumerate(sigma):
        x0_hat, error = _errors(prior, u, r, level, seed, batch_size)
        square = error.square().flatten(1).mean(1)
        means.append(float(square.mean()))
        stds.append(float(square.std()))
        if local:
            table = tabulate(x0_hat, error, WINDOW, activity, grey)
            scales.append([[_short(v, 3) for v in row] for row in table.tolist()])
            log_s = torch.tensor(scales[-1], dtype=torch.float64).log()[None]
            error = error / read_off(log_s, x0_hat, WINDOW, activity, grey)
        power = _power(error, channels, batch_size)
        values.append(_binned(power, index, len(frequency) or index.numel()))
    found = {"window": WINDOW, "activity": activity, "level": grey, "scale": scales}
    return {
        "sigma": [float(s) for s in sigma],
        "basis": "dct",
        "channels": channels.tolist(),
        "bins": bins,
        **({"shape": list(u.shape[-2:])} if bins == "full" else {"frequency": frequency}),
        "values": [[[_short(v) for v in row] for row in level] for level in values],
        **({"local": found} if local else {}),
        "error_mean": [_short(v) for v in means],
        "error_std": [_short(v) for v in stds],
        "images": len(images),
    }


def _checked(prior: Prior, images: Tensor, bins: str) -> Tensor:
    """The images in the prior's units."""
    if images.ndim != 4 or len(images) < 2:
        raise ValueError(f"images must be (N >= 2, C, H, W); got {tuple(images.shape)}")
    if bins not in ("auto", "full", "radial"):
        raise ValueError(f'bins must be "auto", "full" or "radial"; got {bins!r}')
    u = prior.from_data(images)
    prior.check_event(u)
    return u


def _levels(prior: Prior, u: Tensor) -> list[float]:
    low = prior.sde.ratio(prior.t_min)
    high = min(prior.sde.ratio(prior.sde.T), 30 * max(float(u.std()), low))
    return torch.logspace(math.log10(low), math.log10(high), 28, dtype=torch.float64).tolist()


def _channel_directions(u: Tensor) -> Tensor:
    """Eigenvectors of the channels' covariance, one a row; the identity for up to two channels.

    Two channels are a complex image, whose phase is arbitrary: no direction is preferred.
    """
    C = u.shape[1]
    if C <= 2:
        return torch.eye(C, dtype=torch.float64)
    centred = (u - u.mean((0, 2, 3), keepdim=True)).transpose(0, 1).reshape(C, -1).double()
    return torch.linalg.eigh(centred @ centred.T)[1].T.flip(0).cpu()


def _bins(bins: str, shape: Any) -> tuple[list[float], Tensor]:
    """Centres of the bins (empty for "full") and the bin of each coefficient, (H, W)."""
    H, W = shape
    if bins == "full":
        return [], torch.arange(H * W).reshape(H, W)
    f = radius((H, W))
    edges = torch.logspace(math.log10(0.45 / max(H, W)), math.log10(0.7072), 33).double()
    index = torch.bucketize(f, edges)
    used, index = torch.unique(index, return_inverse=True)
    centres = [float(f[index == j].mean()) for j in range(len(used))]
    return centres, index


def _errors(
    prior: Prior, u: Tensor, r: float, level: int, seed: int, batch_size: int
) -> tuple[Tensor, Tensor]:
    """The denoised images and their errors x_0 - x0_hat at one level, (N, C, H, W) on the CPU."""
    t = prior.sde.time(r)
    alpha, sigma = prior.sde.alpha(t), prior.sde.sigma(t)
    found = []
    for start in range(0, len(u), batch_size):
        x0 = u[start : start + batch_size]
        z = Noise(seed, range(start, start + len(x0)))(x0, level, OTHER)
        found.append(prior.denoise(alpha * x0 + sigma * z, t).cpu())
    x0_hat = torch.cat(found)
    return x0_hat, u.cpu() - x0_hat


def _power(error: Tensor, channels: Tensor, batch_size: int) -> Tensor:
    """Mean squared coefficients (C, H, W) of errors (N, C, H, W)."""
    total = torch.zeros(error.shape[1:], dtype=torch.float64)
    for e in error.split(batch_size):
        total += dct(torch.einsum("ij,bjhw->bihw", channels, e.double())).square().sum(0)
    return total / len(error)


def _binned(power: Tensor, index: Tensor, count: int) -> list[list[float]]:
    """The mean of power (C, H, W) over each bin."""
    flat = index.flatten()
    size = torch.zeros(count, dtype=torch.float64).index_add(
        0, flat, torch.ones(len(flat), dtype=torch.float64)
    )
    return [
        (torch.zeros(count, dtype=torch.float64).index_add(0, flat, row.flatten()) / size).tolist()
        for row in power
    ]


def _short(value: float, digits: int = 5) -> float:
    """Five digits: the scatter of a spectrum is far larger, and headers stay small."""
    return float(f"{value:.{digits}g}")
