"""Exact likelihood along the probability-flow ODE, and the latents at its other end.

With y = x / sqrt(alpha^2 + sigma^2), l = log(sigma / alpha) and r = sigma / alpha (sampling.ode),
d log p(y) / dl = -div(dy/dl) = -d / (1 + r^2) + tr(dx0_hat/dx) alpha
(Chen et al. 2018; Song et al. 2021, eq. 39).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .prior import Prior
from .randomness import MEASUREMENT, PROBE, Noise
from .sampling.driver import choose, counted
from .sampling.generate import as_prior
from .sampling.grid import check_grid
from .sampling.ode import flow, item_norm, odeint, scale, time_within

EXACT_UP_TO = 256
Trace = Callable[[Tensor, Tensor], Tensor]


def log_likelihood(
    x: Tensor,
    prior: Prior,
    *,
    trace: str = "auto",
    probes: int = 8,
    probe: str = "rademacher",
    t_end: float | None = None,
    terminal: str = "sde",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    seed: int = 0,
    items: Sequence[int] | None = None,
    return_info: bool = False,
) -> Any:
    """log p_t(x) in nats, (B,), at t = t_end (default prior.t_min), x (B, *event) in data units.

    trace: "exact" takes d vector-Jacobian products a call, "hutchinson" `probes` of them with
    "rademacher" or "gaussian" probes of each item's own; "auto" is exact up to d = 256. p_t is the
    law of alpha x_0 + sigma eps: at t_min the data, barely blurred.
    terminal: the law taken for x_T. "sde" is N(0, sigma^2), from which samplers start: log p is the
    density of what `sample(method="ode")` draws (Song et al. 2021). "tweedie" is p_T itself up to
    terms of order (alpha / sigma)^2, for one call more; it matters where data are far from 0 in
    units of sigma(T) / alpha(T). info: t_end, nfe, vjps, trace, probes, and standard_error (B,),
    0 for the exact trace, nan for one probe.
    """
    prior, u = _prepared(prior, x)
    t_end = _end_time(prior, t_end)
    noise = Noise(seed, range(len(u)) if items is None else items)
    kind = _trace_kind(trace, u[0].numel())
    traces = _exact_trace if kind == "exact" else _hutchinson(u, noise, probes, probe)
    prior, counter = counted(prior)
    y, growth = _integrated(prior, u, t_end, traces, rtol, atol)
    xT = y * scale(prior.sde, prior.sde.T)
    logs = choose(TERMINALS, terminal, "terminal law")(prior, xT)[:, None] + growth
    dims = u[0].numel()
    logp = logs.mean(1) - dims * math.log(prior.range[0])
    if not return_info:
        return logp
    info = {"t_end": t_end, "nfe": counter.nfe, "vjps": counter.vjps, "trace": kind}
    error = torch.zeros_like(logp)
    if kind == "hutchinson":
        info["probes"] = probes
        error = logs.std(1) / math.sqrt(probes) if probes > 1 else torch.full_like(logp, math.nan)
    return logp, {**info, "standard_error": error}


def bits_per_dim(
    x: Tensor,
    prior: Prior,
    levels: int = 256,
    *,
    data_range: tuple[float, float] = (0.0, 1.0),
    dequantize: str = "centred",
    draws: int = 1,
    seed: int = 0,
    items: Sequence[int] | None = None,
    return_info: bool = False,
    **options: Any,
) -> Any:
    """Upper bound of -log2 P(x) per dimension for quantized x, (B,), by uniform dequantization.

    E_u[-log2 p(x + u delta)] / d - log2 delta >= 0 for every true density (Theis et al. 2016). x
    holds `levels` equally spaced values over data_range, or is uint8. "centred" spreads each value
    over the bin around it, delta = range / (levels - 1); "rescaled" is Song et al.'s
    (255 x + u) / 256 on the same range, delta = range / levels, for priors trained on that. draws:
    how many u are averaged. Values between levels are an error: they would make no sense of bits.
    Other options go to log_likelihood.
    """
    steps = _level_numbers(x, levels, data_range)
    low, high = data_range
    delta = (high - low) / (levels - 1 if dequantize == "centred" else levels)
    shift = {"centred": -0.5, "rescaled": 0.0}
    if dequantize not in shift:
        raise ValueError(f"dequantize must be one of {', '.join(shift)}; got {dequantize!r}")
    rows = range(len(x)) if items is None else items
    noise, found = Noise(seed, rows), []
    for draw in range(_positive_count("draws", draws)):
        u = noise.uniform(steps, draw, MEASUREMENT) + shift[dequantize]
        point = low + delta * (steps + u)
        found.append(
            log_likelihood(point, prior, seed=seed, items=rows, return_info=True, **options)
        )
    nats = torch.stack([logp for logp, _ in found]).mean(0)
    to_bits = 1 / (x[0].numel() * math.log(2))
    bits = -nats * to_bits - math.log2(delta)
    if not return_info:
        return bits
    errors = torch.stack([info["standard_error"] for _, info in found])
    error = errors.square().sum(0).sqrt() / draws * to_bits
    return bits, {**found[0][1], "nfe": sum(i["nfe"] for _, i in found), "standard_error": error}


def encode(
    x: Tensor, prior: Prior, *, t_end: float | None = None, rtol: float = 1e-5, atol: float = 1e-5
) -> Tensor:
    """Latents z (B, *event), N(0, I) for draws of the prior: x, taken for x_t at t_end (default
    t_min), along the probability-flow ODE to T, over the terminal std.

    decode(z) is its inverse, and sample(prior, shape, method="ode", latents=z) that plus the last
    denoising step.
    """
    prior, u = _prepared(prior, x)
    mean, std = prior.sde.terminal(tuple(u.shape))
    xT = flow(prior, u, _end_time(prior, t_end), prior.sde.T, rtol=rtol, atol=atol)
    return (xT - mean.to(u)) / std


def decode(
    z: Tensor, prior: Prior, *, t_end: float | None = None, rtol: float = 1e-5, atol: float = 1e-5
) -> Tensor:
    """x (B, *event) in data units whose latents are z: the inverse of `encode`."""
    prior = as_prior(prior)
    prior.check_event(z)
    mean, std = prior.sde.terminal(tuple(z.shape))
    xT = mean.to(z) + std * z
    return prior.to_data(
        flow(prior, xT, prior.sde.T, _end_time(prior, t_end), rtol=rtol, atol=atol)
    )


def interpolate(z: Tensor, w: Tensor, weight: float) -> Tensor:
    """Spherical interpolation of latents (B, *event), z at weight 0 and w at 1, for each item.

    (sin((1 - weight) a) z + sin(weight a) w) / sin a, a the angle between the two (Shoemake 1985);
    a straight line would pass through latents of too small a norm.
    """
    if z.shape != w.shape:
        raise ValueError(f"latents must be of one shape; got {tuple(z.shape)}, {tuple(w.shape)}")
    a, b = z.flatten(1), w.flatten(1)
    cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    angle = cosine.clamp(-1, 1).arccos().clamp(1e-4, math.pi - 1e-4)[:, None]
    mixed = torch.sin((1 - weight) * angle) * a + torch.sin(weight * angle) * b
    return (mixed / torch.sin(angle)).reshape(z.shape)


def _integrated(
    prior: Prior, u: Tensor, t: float, traces: Trace, rtol: float, atol: float
) -> tuple[Tensor, Tensor]:
    """y at T and log p_t(u) - log p_T(x_T) for each estimate of the trace, (B, estimates)."""
    sde, dims = prior.sde, u[0].numel()

    def slope(log_ratio: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        r = math.exp(log_ratio.item())
        at = time_within(sde, r, t, sde.T)
        with torch.enable_grad():
            x = (state[0] * scale(sde, at)).detach().requires_grad_()
            x0_hat = prior.denoise(x, at)
            found = traces(x0_hat, x)
        grow = state[0] / (1 + r**2) - x0_hat.detach() / math.sqrt(1 + r**2)
        return grow, dims / (1 + r**2) - sde.alpha(at) * found

    with torch.no_grad():
        y = u / scale(sde, t)
        count = traces.count if isinstance(traces, _Hutchinson) else 1
        state = (y, y.new_zeros(len(y), count))
        y, growth = odeint(slope, state, sde, t, sde.T, rtol, atol, _joint_norm)
    # From the density of y at T to that of x at t.
    return y, growth + dims * math.log(scale(sde, sde.T) / scale(sde, t))


def _log_terminal(prior: Prior, xT: Tensor) -> Tensor:
    """log N(x_T; mean, std^2) of sde.terminal, (B,)."""
    mean, std = prior.sde.terminal(tuple(xT.shape))
    return _log_normal(xT - mean.to(xT), std)


@torch.no_grad()
def _log_tweedie(prior: Prior, xT: Tensor) -> Tensor:
    """log p_T(x_T) ~ log N(x_T; alpha m, sigma^2) with m = E[x_0 | x_T / 2], (B,).

    log p_T(x) = log N(x; 0, sigma^2) + log E exp((alpha x.x_0 - alpha^2 |x_0|^2 / 2) / sigma^2).
    The last term's gradient is alpha E[x_0 | x] / sigma^2 (Tweedie), which the midpoint rule
    integrates from 0 to x; at x = 0 it is -alpha^2 E|x_0|^2 / (2 sigma^2), where |m|^2 stands for
    E|x_0|^2.
    """
    sde = prior.sde
    m = prior.denoise(0.5 * xT, sde.T)
    return _log_normal(xT - sde.alpha(sde.T) * m, sde.sigma(sde.T))


TERMINALS = {"sde": _log_terminal, "tweedie": _log_tweedie}


def _log_normal(x: Tensor, std: float) -> Tensor:
    """log N(x; 0, std^2 I) of each item, (B,)."""
    log_one = 0.5 * math.log(2 * math.pi) + math.log(std)
    return -0.5 * (x.flatten(1) / std).square().sum(1) - x[0].numel() * log_one


def _joint_norm(state: tuple[Tensor, Tensor]) -> Tensor:
    """The largest error of any item, in its image or in any of its log densities."""
    return torch.maximum(item_norm(state[0]), state[1].abs().max())


def _exact_trace(x0_hat: Tensor, x: Tensor) -> Tensor:
    """tr(dx0_hat/dx) of each item by d vector-Jacobian products, (B, 1)."""
    flat, total = x0_hat.flatten(1), x.new_zeros(len(x))
    for i in range(flat.shape[1]):
        (row,) = torch.autograd.grad(flat[:, i].sum(), x, retain_graph=True)
        total = total + row.flatten(1)[:, i]
    return total[:, None]


class _Hutchinson:
    """E[v^T J v] = tr J for v of unit covariance (Hutchinson 1989), each probe an estimate."""

    def __init__(self, probes: list[Tensor]):
        self.probes, self.count = probes, len(probes)

    def __call__(self, x0_hat: Tensor, x: Tensor) -> Tensor:
        found = []
        for v in self.probes:
            (product,) = torch.autograd.grad(x0_hat, x, v, retain_graph=True)
            found.append((product * v).flatten(1).sum(1))
        return torch.stack(found, dim=1)


def _hutchinson(u: Tensor, noise: Noise, probes: int, probe: str) -> _Hutchinson:
    draw = {"rademacher": noise.rademacher, "gaussian": noise}
    if probe not in draw:
        raise ValueError(f"probe must be one of {', '.join(draw)}; got {probe!r}")
    return _Hutchinson([draw[probe](u, j, PROBE) for j in range(_positive_count("probes", probes))])


def _trace_kind(trace: str, dims: int) -> str:
    if trace == "auto":
        return "exact" if dims <= EXACT_UP_TO else "hutchinson"
    if trace not in ("exact", "hutchinson"):
        raise ValueError(f"trace must be 'auto', 'exact' or 'hutchinson'; got {trace!r}")
    return trace


def _prepared(prior: Prior, x: Tensor) -> tuple[Prior, Tensor]:
    prior = as_prior(prior)
    prior.check_event(x)
    if not x.is_floating_point():
        raise ValueError(f"x must be floating point in data units; got {x.dtype}")
    return prior, prior.from_data(x)


def _end_time(prior: Prior, t_end: float | None) -> float:
    return prior.t_min if t_end is None else check_grid(prior.sde, [prior.sde.T, t_end])[1]


def _level_numbers(x: Tensor, levels: int, data_range: tuple[float, float]) -> Tensor:
    """0 .. levels - 1 for each value of x, in floating point."""
    low, high = data_range
    if levels < 2 or not low < high:
        raise ValueError(f"need levels >= 2 and low < high; got {levels} and {data_range}")
    if x.dtype == torch.uint8:
        number = x.to(torch.float32)
        off = 0.0
    else:
        exact = (x - low) / (high - low) * (levels - 1)
        number = exact.round()
        off = (exact - number).abs().max().item()
    if off > 0.01 or number.min() < 0 or number.max() > levels - 1:
        raise ValueError(
            f"x must hold {levels} levels equally spaced over {data_range}; got values from "
            f"{x.min().item():.4g} to {x.max().item():.4g}, up to {off:.2g} of a level off"
        )
    return number


def _positive_count(name: str, value: int) -> int:
    if int(value) != value or value < 1:
        raise ValueError(f"{name} must be an integer >= 1; got {value}")
    return int(value)
