"""Posteriors: a prior and a measurement give a prior with another score."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor

from operators.linear import LinearOperator

from ..prior import Prior
from .conditional import guide
from .covariance import ErrorSpectrum, pixel_variance
from .examination import Examination, examine
from .held_out import error_spectrum
from .measurement import LinearMeasurement, Measurement, NonlinearMeasurement
from .method import Method
from .methods import METHODS
from .resolve import Job, method_named, resolve
from .units import measure

__all__ = [
    "METHODS",
    "ErrorSpectrum",
    "Examination",
    "Job",
    "LinearMeasurement",
    "Measurement",
    "Method",
    "NonlinearMeasurement",
    "condition",
    "error_spectrum",
    "examine",
    "guide",
    "measure",
    "pixel_variance",
    "resolve",
]


def condition(
    prior: Prior,
    y: Tensor,
    operator: LinearOperator,
    *,
    noise_std: Any,
    method: str = "moment-matching",
    examine: bool = False,
    **options: Any,
) -> Prior:
    """p(x | y) as a Prior that every sampler runs on, for y = A x + noise_std n.

    y (B, *operator.out_shape) in data units, one measurement a row of the batch to be sampled;
    noise_std in y's units: float, (B,) or broadcastable to y, per real and imaginary part; None
    asks operator.estimate_noise(y). options: covariance="jacobian" | "spectrum" | "isotropic" of
    moment matching, and each method's own. examine=True: first compares the data with what the
    prior can explain, a call of the network an item, and takes noise_std as larger, with a
    warning, where they disagree (covariance="spectrum"). Raises ValueError for what does not fit.
    """
    chosen = method_named(method)
    if chosen.conditional is None:
        names = [name for name, m in METHODS.items() if m.conditional is not None]
        raise ValueError(
            f"{method!r} is not a conditional score, run it by solve(); condition() has "
            f"{', '.join(names)}"
        )
    data: Any = measure(prior, y, operator, noise_std)
    chosen.check(linear=data.linear, exact=data.exact, others=tuple(METHODS.values()))
    own, data = chosen.made(options), chosen.seen(prior, data)
    if examine and chosen.examine is not None:
        found = chosen.examine(prior, data, own, 0, range(len(data)))
        if found is not None and found.words:
            warnings.warn(found.words, stacklevel=2)
            data = found.applied(data)
    return chosen.conditional(prior, data, own)
