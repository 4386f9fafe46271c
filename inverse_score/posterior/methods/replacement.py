"""Replacement: the measured part of the state is y's, at the state's noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from operators.linalg import per_item

from ...prior import Prior
from ...randomness import OTHER, Noise
from ...sampling.driver import Hook
from ..measurement import LinearMeasurement
from ..method import Course, Method, NoOptions, Walk


def replacement(
    prior: Prior, data: LinearMeasurement, noise: Noise, walk: Walk, options: NoOptions
) -> Tensor:
    """Replace the measured part by y at the state's noise (Song et al. 2021, app. I.2, I.3)."""
    exact = getattr(data.operator.forms.transform, "exact", False)
    if not exact:
        raise ValueError(
            f"{type(data.operator).__name__} does not measure part of an invertible transform of "
            'x, which "replacement" needs; "song22" and "moment-matching" take any operator'
        )
    hook = replacement_hook(prior, data, noise, lambda r: 1.0)
    return walk.sample(prior, data, noise, hook)


def replacement_hook(
    prior: Prior, data: LinearMeasurement, noise: Noise, lam: Callable[[float], Any]
) -> Hook:
    """x <- x + lam T^-1 Lambda (P^-1(y_t) - T x), y_t = alpha y + sigma A z, z drawn afresh.

    Song et al. 2022, eq. 9; lam = 1 is the replacement of Song et al. 2021 (inpainting,
    colorization). T and Lambda are the operator's `transform`; without one, A^+ does their work.
    """
    transform = data.operator.forms.transform
    draws = iter(range(1 << 40))

    def hook(x: Tensor, t: float) -> Tensor:
        z = noise(x, next(draws), OTHER)
        known = prior.sde.alpha(t) * data.y + prior.sde.sigma(t) * data.operator(z)
        weight = lam(prior.sde.ratio(t))
        if transform is not None and data.exact | data.shared:
            change = transform.embed(known) - transform.mask * transform.T(x)
            step = transform.T_inv(change)
        else:
            step = data.pinv(known - data.operator(x))
        step = step.real if step.is_complex() and not x.is_complex() else step
        return x + per_item(weight, x) * step if isinstance(weight, Tensor) else x + weight * step

    return hook


def replacement_weight(data: LinearMeasurement, lam: float | None) -> Callable[[float], Any]:
    """r -> lam; None: r^2 / (r^2 + level^2), which is 1 while the diffusion's noise dominates."""

    def weight(r: float) -> Any:
        return r**2 / (r**2 + data.level**2) if lam is None else lam

    return weight


METHOD = Method(
    "replacement",
    NoOptions,
    replacement,
    Course("pc", steps=250),
    presets={"paper": {"steps": 1000, "kind": "uniform"}},
    needs_noise=False,
)
