"""Posteriors: a prior and a measurement give a prior with another score."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from operators.linear import LinearOperator

from ..prior import Prior
from .conditional import guide, options_error
from .covariance import ErrorSpectrum, pixel_variance
from .held_out import error_spectrum
from .measurement import Measurement, measure
from .methods import METHODS, Method
from .nonlinear import linear_only

__all__ = [
    "METHODS",
    "ErrorSpectrum",
    "Measurement",
    "Method",
    "condition",
    "error_spectrum",
    "guide",
    "measure",
    "pixel_variance",
]


def condition(
    prior: Prior,
    y: Tensor,
    operator: LinearOperator,
    *,
    noise_std: Any,
    method: str = "moment-matching",
    **options: Any,
) -> Prior:
    """p(x | y) as a Prior that every sampler runs on, for y = A x + noise_std n.

    y (B, *operator.out_shape) in data units, one measurement a row of the batch to be sampled;
    noise_std in y's units: float, (B,) or broadcastable to y, per real and imaginary part; None
    asks operator.estimate_noise(y). options: covariance="jacobian" | "spectrum" | "isotropic" of
    moment matching, and each method's own. Raises ValueError for what does not fit.
    """
    chosen = method_named(method)
    if chosen.conditional is None:
        names = [name for name, m in METHODS.items() if m.conditional is not None]
        raise ValueError(
            f"{method!r} is not a conditional score, run it by solve(); condition() has "
            f"{', '.join(names)}"
        )
    data = measure(prior, y, operator, noise_std)
    check_noise(method, chosen, data)
    known = set(chosen.options()) | _covariance_options(method)
    if not set(options) <= known:
        raise options_error(method, set(options) - known, known)
    return chosen.conditional(prior, data, **options)


def method_named(name: str) -> Method:
    """METHODS[name], or a ValueError that lists the names."""
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; known: auto, {', '.join(METHODS)}")
    return METHODS[name]


def check_noise(name: str, method: Method, data: Measurement) -> None:
    """ValueError for exact data and a method that divides by the noise, or for an operator that is
    not linear and a method that needs one."""
    if not (data.linear or method.nonlinear):
        raise linear_only(name, [other for other, m in METHODS.items() if m.nonlinear])
    if method.needs_noise and data.exact:
        able = [other for other, m in METHODS.items() if not m.needs_noise]
        raise ValueError(
            f"noise_std is 0 and {name!r} needs noise; methods for exact data: {', '.join(able)}"
        )


def _covariance_options(method: str) -> set[str]:
    return {"spectrum", "tol", "max_iter", "variance"} if method == "moment-matching" else set()
