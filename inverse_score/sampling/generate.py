"""`sample`: unconditional (or conditional) samples in data units, from one call."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..prior import Prior
from ..randomness import Noise
from .adaptive import adaptive_sde
from .driver import (
    Callback,
    Hook,
    check_options,
    choose,
    counted,
    defaults_of,
    integrate,
    start,
)
from .grid import check_grid, end_ratio, make_grid
from .mcmc import (
    CORRECTORS,
    PREDICTORS,
    STEPS,
    annealed_langevin,
    langevin,
    predictor_corrector,
)
from .ode import ode

DEFAULT_METHOD, DEFAULT_STEPS = "dpm++2m", 35


def _fixed_step(name: str) -> Callable[..., Tensor]:
    make_step = STEPS[name]

    def sampler(
        prior: Prior,
        xT: Tensor,
        times: Sequence[float],
        noise: Noise,
        *,
        hook: Hook | None = None,
        callback: Callback | None = None,
        **options: Any,
    ) -> Tensor:
        check_options(make_step, name, options)
        step = make_step(prior, noise, **options)
        return integrate(step, prior, xT, times, hook=hook, callback=callback)

    sampler.__name__, sampler.__doc__ = make_step.__name__, make_step.__doc__
    return sampler


def _checked(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def sampler(prior: Prior, xT: Tensor, times: Sequence[float], noise: Noise, **options: Any):
        own = {k: v for k, v in options.items() if k not in ("hook", "callback")}
        check_options(function, name, own)
        return function(prior, xT, times, noise, **options)

    sampler.__name__, sampler.__doc__ = function.__name__, function.__doc__
    return sampler


_OTHERS = {
    "ode": ode,
    "adaptive-sde": adaptive_sde,
    "pc": predictor_corrector,
    "annealed-langevin": annealed_langevin,
    "langevin": langevin,
}
# sampler(prior, xT, times, noise, *, hook=None, callback=None, **options) -> x0_hat
SAMPLERS: dict[str, Callable[..., Tensor]] = {
    **{name: _fixed_step(name) for name in STEPS},
    **{name: _checked(name, function) for name, function in _OTHERS.items()},
}
ADAPTIVE = ("ode", "adaptive-sde")
# Calls of the prior a step, where it is not one.
_CALLS = {"heun": 2, "stochastic-rk": 2, "none": 0}


def sampler_options(name: str) -> dict[str, Any]:
    """The options of a sampler and their defaults; ValueError for a name that does not exist."""
    return defaults_of(choose({**STEPS, **_OTHERS}, name, "sampler"))


def check_pair(options: Mapping[str, Any]) -> None:
    """ValueError for a predictor or corrector of "pc", or an option of it, that does not exist."""
    said = {**sampler_options("pc"), **options}
    for part, table in (("predictor", PREDICTORS), ("corrector", CORRECTORS)):
        function = choose({"none": lambda: None, **table}, said[part], part)
        check_options(function, said[part], said[f"{part}_options"] or {})


def calls_of(name: str, options: Mapping[str, Any], steps: int) -> int | None:
    """Network calls of a sample on `steps` times; None where the sampler chooses its own steps."""
    if name in ADAPTIVE:
        return None
    said = {**sampler_options(name), **options}
    if name == "annealed-langevin":
        each = said["inner"]
    elif name == "pc":
        moves = said["corrector_steps"] * _corrector_calls(said)
        each = _CALLS.get(said["predictor"], 1) + moves
    else:
        each = _CALLS.get(name, 1)
    return (steps - 1) * each + 1


def _corrector_calls(said: Mapping[str, Any]) -> int:
    if said["corrector"] == "none":
        return 0
    own = {**defaults_of(CORRECTORS[said["corrector"]]), **(said["corrector_options"] or {})}
    return 1 + own.get("leapfrog", 0)


def sample(
    prior: Prior | str | os.PathLike[str],
    shape: Sequence[int] | int,
    *,
    method: str = "auto",
    steps: int | None = None,
    times: Sequence[float] | None = None,
    seed: int = 0,
    items: Sequence[int] | None = None,
    latents: Tensor | None = None,
    temperature: float = 1.0,
    dtype: torch.dtype = torch.float32,
    callback: Callback | None = None,
    return_info: bool = False,
    **options: Any,
) -> Any:
    """Samples of the prior, (B, *event), in data units; with return_info (samples, info).

    prior: a Prior, a path or the name of one that ships. shape: (B, *event), or B alone where the
    prior knows its event. method: "auto" (the best of the measured table, DPM-Solver++ 2M with 35
    steps) or one of SAMPLERS; its own options follow by name. steps: times in the grid, the last
    x0_hat included, so nfe of the methods with one call a step (Heun and stochastic-rk: 2 steps -
    1; adaptive methods take none); times: a grid of one's own instead, decreasing, in (0, T].
    Row i is a pure function of (seed, items[i]), items 0, 1, ... by default. latents (B, *event):
    start from these (N(0, I), as `encode` gives) instead of drawn ones; temperature scales the
    start. callback(step, t, x, x0_hat) sees the prior's own units u. info: method, nfe, vjps,
    times, seconds. Bad arguments raise ValueError.
    """
    prior = as_prior(prior)
    method = DEFAULT_METHOD if method == "auto" else method
    sampler = choose(SAMPLERS, method, "sampler")
    shape = _full_shape(prior, shape)
    noise = Noise(seed, range(shape[0]) if items is None else items)
    grid = _grid(prior, method, steps, times)
    prior, counter = counted(prior)
    xT = _start(prior, shape, noise, latents, temperature, dtype)
    began = time.perf_counter()
    x = prior.to_data(sampler(prior, xT, grid, noise, callback=callback, **options))
    if not return_info:
        return x
    seconds = time.perf_counter() - began
    info = {"method": method, "nfe": counter.nfe, "vjps": counter.vjps, "times": grid}
    return x, {**info, "seconds": seconds}


def as_prior(prior: Any) -> Prior:
    """A Prior as it is; a path or a name loaded."""
    if isinstance(prior, Prior):
        return prior
    if isinstance(prior, str | os.PathLike):
        from ..io.priors import load_prior

        return load_prior(prior)
    raise ValueError(f"prior must be a Prior, a path or a name; got {type(prior).__name__}")


def _full_shape(prior: Prior, shape: Sequence[int] | int) -> tuple[int, ...]:
    if isinstance(shape, int):
        if prior.fixed_shape is None:
            told = f"the prior's event_shape is {prior.event_shape}"
            raise ValueError(f"shape must be (B, *event): {told}")
        shape = (shape, *prior.fixed_shape)
    full = tuple(int(n) for n in shape)
    if len(full) < 2 or min(full) < 1:
        raise ValueError(f"shape must be (B, *event) with positive sizes; got {full}")
    return full


def _grid(
    prior: Prior, method: str, steps: int | None, times: Sequence[float] | None
) -> list[float]:
    if steps is not None and times is not None:
        raise ValueError("give steps or times, not both")
    if times is not None:
        return check_grid(prior.sde, times)
    if steps is not None and method in ADAPTIVE:
        raise ValueError(f"{method!r} chooses its own steps; set rtol and atol instead of steps")
    return make_grid(prior.sde, steps or DEFAULT_STEPS, end_ratio=end_ratio(prior))


def _start(
    prior: Prior,
    shape: tuple[int, ...],
    noise: Noise,
    latents: Tensor | None,
    temperature: float,
    dtype: torch.dtype,
) -> Tensor:
    if not temperature >= 0:
        raise ValueError(f"temperature must be >= 0; got {temperature}")
    if latents is None:
        return temperature * start(prior, shape, noise, dtype=dtype)
    if tuple(latents.shape) != shape:
        raise ValueError(f"latents must be of shape {shape}; got {tuple(latents.shape)}")
    latents = latents.to(prior.device)
    mean, std = prior.sde.terminal(shape)
    return mean.to(latents) + temperature * std * latents
