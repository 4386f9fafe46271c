"""Samplers made of correctors: predictor-corrector, annealed Langevin and plain Langevin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..prior import Prior
from ..randomness import Noise
from . import correctors, predictors, solvers
from .driver import (
    Callback,
    Correct,
    Hook,
    Step,
    check_finite,
    check_options,
    choose,
    finish,
    integrate,
)
from .grid import check_grid

STEPS: dict[str, Callable[..., Step]] = {
    "euler-maruyama": predictors.euler_maruyama,
    "reverse-diffusion": predictors.reverse_diffusion,
    "ancestral": predictors.ancestral,
    "stochastic-rk": predictors.stochastic_rk,
    "ddim": predictors.ddim,
    "dpm++2m": solvers.dpm_solver_2m,
    "dpm++2m-sde": solvers.dpm_solver_2m_sde,
    "heun": solvers.heun,
}
PREDICTORS: dict[str, Callable[..., Step]] = {**STEPS, "none": predictors.none}
MULTISTEP = ("dpm++2m", "dpm++2m-sde")
CORRECTORS: dict[str, Callable[..., Correct]] = {
    "langevin": correctors.langevin,
    "annealed-langevin": correctors.annealed_langevin,
    "hmc": correctors.hmc,
    "unadjusted-hmc": correctors.unadjusted_hmc,
}


def predictor_corrector(
    prior: Prior,
    xT: Tensor,
    times: Sequence[float],
    noise: Noise,
    *,
    predictor: str = "reverse-diffusion",
    corrector: str = "langevin",
    corrector_steps: int = 1,
    predictor_options: dict[str, Any] | None = None,
    corrector_options: dict[str, Any] | None = None,
    hook: Hook | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """A predictor step to the next noise level, then `corrector_steps` moves within it.

    Song et al. 2021, alg. 1, for any pair of PREDICTORS and CORRECTORS, "none" included; nfe is
    what they call, and the last x0_hat. A corrector draws the state anew, so that the x0_hat of the
    step before tells a multistep predictor nothing: beside one it takes first-order steps.
    """
    make_step = choose(PREDICTORS, predictor, "predictor")
    check_options(make_step, predictor, predictor_options or {})
    first = {"order": 1} if predictor in MULTISTEP and corrector != "none" else {}
    step = make_step(prior, noise, **{**first, **(predictor_options or {})})
    correct = None
    if corrector != "none":
        make_correct = choose({**CORRECTORS, "none": None}, corrector, "corrector")
        check_options(make_correct, corrector, corrector_options or {})
        correct = make_correct(prior, noise, **(corrector_options or {}))
    _check_count("corrector_steps", corrector_steps)
    return integrate(
        step,
        prior,
        xT,
        times,
        hook=hook,
        callback=callback,
        correct=correct,
        corrector_steps=corrector_steps,
    )


def annealed_langevin(
    prior: Prior,
    xT: Tensor,
    times: Sequence[float],
    noise: Noise,
    *,
    inner: int = 5,
    snr: float | None = None,
    hook: Hook | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Langevin moves at one noise scale after another (Song & Ermon 2019, alg. 1).

    The ladder is `times` (xT is already a draw of its first level); `inner` moves a level, of step
    2 (snr sigma)^2, or of the step that technique 4 of Song & Ermon 2020 finds if snr is None.
    """
    _check_count("inner", inner)
    correct = correctors.annealed_langevin(prior, noise, snr=snr, inner=inner)
    step = predictors.none(prior, noise)
    return integrate(
        step,
        prior,
        xT,
        times,
        hook=hook,
        callback=callback,
        correct=correct,
        corrector_steps=inner,
    )


@torch.no_grad()
def langevin(
    prior: Prior,
    xT: Tensor,
    times: Sequence[float],
    noise: Noise,
    *,
    snr: float = 0.22,
    hook: Hook | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Langevin dynamics at the last time alone, as many moves as the grid has steps.

    x + eps score + sqrt(2 eps) z, eps = 2 (snr sigma)^2: the comparison that annealing is for. It
    starts from xT taken for x_t, so it mixes only within reach of its start.
    """
    times = check_grid(prior.sde, times)
    prior.check_event(xT)
    t = times[-1]
    correct = correctors.annealed_langevin(prior, noise, snr=snr)
    x = xT if hook is None else hook(xT, t)
    for k in range(len(times) - 1):
        new, x0_hat = correct(k, x, t, t)
        if callback is not None:
            callback(k, t, x, x0_hat)
        x = new if hook is None else hook(new, t)
        check_finite(x, k, t)
    return finish(prior, x, t, len(times) - 1, callback)


def _check_count(name: str, value: int) -> None:
    if int(value) != value or value < 1:
        raise ValueError(f"{name} must be an integer >= 1; got {value}")
