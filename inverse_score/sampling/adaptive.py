"""The reverse SDE with a step size of each item's own (Jolicoeur-Martineau et al. 2021, alg. 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import NotFinite
from ..prior import Prior
from ..randomness import PREDICTOR, Noise
from ..sde import SDE, per_item
from .driver import Callback, Hook, finish, score_of
from .grid import check_grid


@torch.no_grad()
def adaptive_sde(
    prior: Prior,
    xT: Tensor,
    times: Sequence[float],
    noise: Noise,
    *,
    rtol: float = 0.02,
    atol: float = 0.0078,
    first_step: float = 0.01,
    safety: float = 0.9,
    exponent: float = 0.9,
    max_iterations: int = 10000,
    hook: Hook | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """From times[0] to times[-1]; the times between are not used. Two calls an attempted step.

    x' is the Euler-Maruyama step of length h, x'' the average of it and of a step with the drift
    and g at x' (stochastic improved Euler). E = RMS((x' - x'') / max(atol, rtol max(|x'|,
    |x'_before|))); x'' is accepted if E <= 1, and h becomes safety h E^-exponent. An item's steps
    depend on itself alone; the batch goes on until the slowest is done. atol .0078 is their 8-bit
    step for data in [-1, 1]; first_step is in units of T.
    A callback sees the iteration's number, the slowest item's time, x and x0_hat.
    """
    for name, value in (("rtol", rtol), ("atol", atol), ("first_step", first_step)):
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be positive; got {value}")
    times = check_grid(prior.sde, times)
    prior.check_event(xT)
    sde, end = prior.sde, times[-1]
    x = before = xT if hook is None else hook(xT, times[0])
    # Times stay in double precision on the CPU; only what scales x moves to its device.
    t = torch.full((len(x),), times[0], dtype=torch.float64)
    h = torch.full_like(t, first_step * sde.T).clamp(max=times[0] - end)
    for k in range(max_iterations):
        z = noise(x, k, PREDICTOR)
        slope, x0_hat = _reverse_drift(prior, x, t)
        if callback is not None:
            callback(k, t.max().item(), x, x0_hat)
        low = (t - h).clamp(min=end)
        euler = _move(sde, x, slope, t, h, z)
        improved = 0.5 * (euler + _move(sde, x, _reverse_drift(prior, euler, low)[0], low, h, z))
        tolerance = (rtol * torch.maximum(euler.abs(), before.abs())).clamp(min=atol)
        E = ((euler - improved) / tolerance).flatten(1).square().mean(1).sqrt().cpu().double()
        _check_error(E, t)
        accepted = (E <= 1) & (t > end)
        rows = accepted.to(x.device).reshape(-1, *[1] * (x.ndim - 1))
        x, before = torch.where(rows, improved, x), torch.where(rows, euler, before)
        t = torch.where(accepted, low, t)
        if hook is not None and accepted.any():
            x = torch.where(rows, hook(x, t), x)  # type: ignore[arg-type]
        if (t <= end).all():
            return finish(prior, x, end, k + 1, callback)
        h = torch.minimum(t - end, safety * h * E.clamp(min=1e-6) ** -exponent)
        # A finished item idles in place while the others go on.
        h = torch.where(t > end, h, torch.zeros_like(h))
    raise ValueError(
        f"{max_iterations} steps did not reach t = {end}; the slowest item is at {t.max().item()}: "
        "loosen rtol and atol or raise max_iterations"
    )


def _reverse_drift(prior: Prior, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """f x - g^2 score, and x0_hat."""
    sde = prior.sde
    x0_hat = prior.denoise(x, t)
    score = score_of(x0_hat, x, sde.alpha(t), sde.sigma(t))
    return per_item(sde.f(t), x) * x - per_item(sde.g(t) ** 2, x) * score, x0_hat


def _move(sde: SDE, x: Tensor, slope: Tensor, t: Tensor, h: Tensor, z: Tensor) -> Tensor:
    """x - h slope + g(t) sqrt(h) z."""
    return x - per_item(h, x) * slope + per_item(sde.g(t) * h.sqrt(), x) * z


def _check_error(E: Tensor, t: Tensor) -> None:
    if not torch.isfinite(E).all():
        i = int(torch.nonzero(~torch.isfinite(E))[0])
        raise NotFinite(f"the state is not finite: item {i} of the batch, at t = {t[i].item():.6g}")
