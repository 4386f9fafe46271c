"""Time grids t_0 > ... > t_K > 0, chosen by noise-to-signal so that one rule serves every SDE."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..prior import Prior
from ..sde import SDE

KINDS = ("log-snr", "karras", "geometric", "uniform")


def end_ratio(prior: Prior, noise_std: Any = None) -> float:
    """The noise-to-signal sigma / alpha at which sampling ends: the prior's smallest scale, or a
    fifth of the least measurement noise (in the prior's units u) where that is smaller.

    Never below what the prior was trained for, ratio(t_min): a warning says where that binds.
    Noise of exactly 0 asks for ratio(t_min) itself.
    """
    floor = prior.sde.ratio(prior.t_min)
    wanted = prior.smallest_scale
    if noise_std is not None:
        least = torch.as_tensor(noise_std, dtype=torch.float64).min().item()
        if not (least >= 0 and math.isfinite(least)):
            raise ValueError(f"noise_std must be finite and >= 0; got {noise_std}")
        if least == 0:
            return floor
        wanted = min(wanted, least / 5)
    # Rounding of time(ratio) is no reason to warn.
    if wanted < floor * (1 - 1e-6):
        warnings.warn(
            f"sampling should end at noise-to-signal {wanted:.3g}, but the prior was trained down "
            f"to {floor:.3g} (t_min {prior.t_min:.3g}): details below that scale are not sampled",
            stacklevel=2,
        )
    return max(wanted, floor)


def make_grid(
    sde: SDE,
    steps: int,
    *,
    end_ratio: float,
    kind: str = "log-snr",
    rho: float = 7.0,
    start_ratio: float | None = None,
) -> list[float]:
    """`steps` times from the start of sampling to noise-to-signal `end_ratio`, decreasing.

    A method of one call a time costs `steps` calls, the final x0_hat included. kind:
    "log-snr": uniform in log(alpha / sigma), that is geometric in sigma / alpha: no noise level is
    special to images, whose spectra are power laws, and it measures best of the four;
    "karras": (a + i (b - a))^rho with a, b the 1/rho powers of the ratios sigma / alpha at the
    ends (Karras et al. 2022, eq. 5); rho = 1 is uniform in sigma / alpha;
    "uniform", "geometric": in t itself. start_ratio None starts at T.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
    if int(steps) != steps or steps < 2:
        raise ValueError(f"steps must be an integer >= 2; got {steps}")
    start = sde.ratio(sde.T) if start_ratio is None else float(start_ratio)
    if not 0 < end_ratio < start <= sde.ratio(sde.T) * (1 + 1e-9):
        raise ValueError(
            f"need 0 < end_ratio < start_ratio <= {sde.ratio(sde.T):.6g}, the SDE's largest; "
            f"got end_ratio {end_ratio}, start_ratio {start}"
        )
    ends = (start, float(end_ratio))
    if kind in ("uniform", "geometric"):
        ends = (sde.time(ends[0]), sde.time(ends[1]))
    points = _spaced(*ends, int(steps), {"karras": rho, "uniform": 1.0}.get(kind, math.inf))
    times = (points if kind in ("uniform", "geometric") else sde.time(points)).tolist()
    if start_ratio is None:
        times[0] = float(sde.T)
    return check_grid(sde, times)


def _spaced(start: float, end: float, count: int, rho: float) -> Tensor:
    """Powers rho of a uniform grid in the 1/rho-th power; rho = inf is the geometric grid."""
    i = torch.linspace(0.0, 1.0, count, dtype=torch.float64)
    if math.isinf(rho):
        return torch.exp(math.log(start) + i * math.log(end / start))
    if not rho > 0:
        raise ValueError(f"rho must be positive; got {rho}")
    return (start ** (1 / rho) + i * (end ** (1 / rho) - start ** (1 / rho))) ** rho


def check_grid(sde: SDE, times: Sequence[float]) -> list[float]:
    """The times as floats; ValueError unless they decrease strictly inside (0, T]."""
    grid = [float(t) for t in times]
    if len(grid) < 2:
        raise ValueError(f"a grid needs at least two times; got {grid}")
    for k, (t, s) in enumerate(pairwise(grid)):
        if not s < t:
            raise ValueError(
                f"times must decrease strictly; got times[{k}] = {t}, times[{k + 1}] = {s}"
            )
    if not (grid[-1] > 0 and grid[0] <= sde.T * (1 + 1e-9)):
        raise ValueError(f"times must lie in (0, {sde.T}]; got {grid[0]} to {grid[-1]}")
    return grid
