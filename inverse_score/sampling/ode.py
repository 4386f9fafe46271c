"""The probability-flow ODE by an adaptive Runge-Kutta method (torchdiffeq).

Integrated in y = x / sqrt(alpha^2 + sigma^2) against l = log(sigma / alpha), where every SDE gives
the same equation with a solution of unit scale,
dy/dl = y / (1 + r^2) - x0_hat / sqrt(1 + r^2), r = sigma / alpha,
on the tensor's own device and in its own dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..prior import Prior
from ..randomness import Noise
from ..sde import SDE
from .driver import Callback, Hook, finish
from .grid import check_grid


def ode(
    prior: Prior,
    xT: Tensor,
    times: Sequence[float],
    noise: Noise | None = None,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    hook: Hook | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Probability-flow ODE (Song et al. 2021, eq. 13) from the first time to the last by dopri5.

    Without hook or callback the times between the ends do not matter. rtol, atol: per item, the RMS
    of the error over rtol |y| + atol stays below 1.
    """
    times = check_grid(prior.sde, times)
    prior.check_event(xT)
    x = xT if hook is None else hook(xT, times[0])
    legs = times if hook is not None or callback is not None else [times[0], times[-1]]
    for k in range(len(legs) - 1):
        if callback is not None:
            with torch.no_grad():
                callback(k, legs[k], x, prior.denoise(x, legs[k]))
        x = flow(prior, x, legs[k], legs[k + 1], rtol=rtol, atol=atol)
        x = x if hook is None else hook(x, legs[k + 1])
    with torch.no_grad():
        return finish(prior, x, times[-1], len(times) - 1, callback)


@torch.no_grad()
def flow(
    prior: Prior, x: Tensor, t: float, s: float, *, rtol: float = 1e-5, atol: float = 1e-5
) -> Tensor:
    """x_s from x_t along the probability-flow ODE, forward or backward in time."""
    sde = prior.sde

    def slope(log_ratio: Tensor, y: Tensor) -> Tensor:
        r = math.exp(log_ratio.item())
        at = time_within(sde, r, t, s)
        x0_hat = prior.denoise(y * scale(sde, at), at)
        return y / (1 + r**2) - x0_hat / math.sqrt(1 + r**2)

    y = odeint(slope, x / scale(sde, t), sde, t, s, rtol, atol, item_norm)
    return y * scale(sde, s)


def scale(sde: SDE, t: float) -> float:
    """sqrt(alpha^2 + sigma^2), by which y = x / scale."""
    return math.hypot(sde.alpha(t), sde.sigma(t))


def time_within(sde: SDE, ratio: float, t: float, s: float) -> float:
    """The time of a noise-to-signal ratio, kept between the ends t and s despite rounding."""
    return min(max(sde.time(ratio), min(t, s)), max(t, s))


def item_norm(y: Tensor) -> Tensor:
    """The largest of the items' own RMS: torchdiffeq's default RMS would couple the batch."""
    return y.flatten(1).square().mean(1).sqrt().max()


def odeint(
    slope: Callable[..., Any],
    state: Any,
    sde: SDE,
    t: float,
    s: float,
    rtol: float,
    atol: float,
    norm: Callable[..., Tensor],
) -> Any:
    """The state at s of d state / dl = slope(l, state) from t; state a tensor or a tuple."""
    # scipy, which it brings, costs half a second to import.
    from torchdiffeq import odeint as solve

    _check_tolerances(rtol, atol)
    first = state if isinstance(state, Tensor) else state[0]
    # MPS has no float64.
    dtype = torch.float32 if first.device.type == "mps" else torch.float64
    ends = [math.log(sde.ratio(t)), math.log(sde.ratio(s))]
    grid = torch.tensor(ends, dtype=dtype, device=first.device)
    options = {"norm": norm, "dtype": dtype}

    def within(log_ratio: Tensor, y: Any) -> Any:
        # The trial step that chooses the first step size may leap out of the range.
        return slope(log_ratio.clamp(min(ends), max(ends)), y)

    path = solve(within, state, grid, rtol=rtol, atol=atol, method="dopri5", options=options)
    return path[-1] if isinstance(state, Tensor) else tuple(part[-1] for part in path)


def _check_tolerances(rtol: float, atol: float) -> None:
    if not (rtol >= 0 and atol >= 0 and rtol + atol > 0 and math.isfinite(rtol + atol)):
        raise ValueError(f"rtol and atol must be >= 0, not both 0; got {rtol} and {atol}")
