"""Samplers of a prior: x0_hat = sampler(prior, xT, times, noise, hook=, callback=, **options)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from ..prior import Prior
from ..randomness import Noise
from . import predictors, solvers
from .driver import Callback, Counter, Hook, Step, check_options, counted, integrate, start
from .grid import check_grid, end_ratio, make_grid

STEPS: dict[str, Callable[..., Step]] = {
    "euler-maruyama": predictors.euler_maruyama,
    "reverse-diffusion": predictors.reverse_diffusion,
    "ancestral": predictors.ancestral,
    "ddim": predictors.ddim,
    "dpm++2m": solvers.dpm_solver_2m,
    "dpm++2m-sde": solvers.dpm_solver_2m_sde,
    "heun": solvers.heun,
}


def _sampler(name: str) -> Callable[..., Tensor]:
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

    sampler.__doc__ = make_step.__doc__
    return sampler


SAMPLERS: dict[str, Callable[..., Tensor]] = {name: _sampler(name) for name in STEPS}

__all__ = [
    "SAMPLERS",
    "Counter",
    "check_grid",
    "counted",
    "end_ratio",
    "integrate",
    "make_grid",
    "start",
]
